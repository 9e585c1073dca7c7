"""The training loop around the engine: what a step's loss and gradients depend on, and what not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.memory import ActivationCheckpointing, MemoryPlan, Optimizer
from tunesmith.api.method import Lora, Method
from tunesmith.api.trainer_contract import Reason
from tunesmith.api.training import Backend, Training

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from transformers import TrainerCallback  # noqa: E402
from tunesmith_trainer.data.chat import Example  # noqa: E402
from tunesmith_trainer.failure import TrainerError  # noqa: E402
from tunesmith_trainer.train.engine import base  # noqa: E402
from tunesmith_trainer.train.engine.build import equip, prepare_model  # noqa: E402
from tunesmith_trainer.train.engine.packing import Collator, rows_of  # noqa: E402
from tunesmith_trainer.train.engine_trainer import EngineTrainer  # noqa: E402
from tunesmith_trainer.train.settings import arguments, engine_settings  # noqa: E402

LENGTH = 32
TRAINING = Training(epochs=1, max_length=LENGTH, batch_size=8, learning_rate=0.01, warmup_ratio=0)


def examples(count: int) -> list[Example]:
    """Of very different numbers of labelled tokens."""
    draw = random.Random(1)
    sizes = [draw.randint(3, LENGTH) for _ in range(count)]
    return [
        Example([draw.randint(3, 250) for _ in range(size)], draw.randint(1, size - 1))
        for size in sizes
    ]


def trainer_for(
    model: Path,
    folder: Path,
    *,
    rows: int = 8,
    accumulation: int = 1,
    method: Method = Method.LORA,
    optimizer: Optimizer = Optimizer.ADAMW,
    held_out: list[Example] | None = None,
) -> EngineTrainer:
    plan = MemoryPlan(
        method=method,
        micro_batch_size=rows,
        gradient_accumulation=accumulation,
        activation_checkpointing=ActivationCheckpointing.OFF,
        optimizer=optimizer,
    )
    torch.manual_seed(0)
    settings = engine_settings(plan, Lora(dropout=0), TRAINING, Backend.TUNESMITH, on_gpu=False)
    args = arguments(TRAINING, plan, folder, on_gpu=False)
    if held_out is None:
        args.eval_strategy = args.save_strategy = "no"
        args.load_best_model_at_end = False
    return EngineTrainer(
        # In 32 bits, whatever this machine's processors multiply best: sums are to be equal.
        model=equip(
            base.load(model, "tiny", torch.float32, torch.device("cpu"), quantised=False),
            "tiny",
            settings,
        ),
        args=args,
        collator=Collator(LENGTH),
        train_rows=rows_of(examples(16), LENGTH, packing=False),
        held_out_rows=rows_of(held_out, LENGTH, packing=False) if held_out else None,
    )


def trained(trainer: EngineTrainer) -> tuple[list[float], dict[str, Any]]:
    trainer.train()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    weights = {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
    return losses, weights


class FirstStep(TrainerCallback):  # type: ignore[misc]
    """The gradients with which the first optimiser step is made."""

    gradients: dict[str, Any]

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        # A later step starts from weights that Adam has moved by the sign of rounding errors.
        if state.global_step == 0:
            self.gradients = {
                name: each.grad.clone()
                for name, each in model.named_parameters()
                if each.grad is not None
            }


def test_loss_and_gradients_do_not_depend_on_the_accumulation_split(
    tiny_model: Path, tmp_path: Path
) -> None:
    found = []
    for rows, accumulation in ((8, 1), (4, 2), (2, 4), (1, 8)):
        trainer = trainer_for(
            tiny_model, tmp_path / str(rows), rows=rows, accumulation=accumulation
        )
        first = FirstStep()
        trainer.add_callback(first)
        losses, _ = trained(trainer)
        assert len(losses) == 2
        found.append((losses[0], first.gradients))
    whole_loss, whole = found[0]
    assert whole
    for loss, split in found[1:]:
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        for name, gradient in whole.items():
            assert (split[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_the_held_out_loss_counts_tokens_and_not_batches(tiny_model: Path, tmp_path: Path) -> None:
    rows = examples(9)
    losses = [
        trainer_for(tiny_model, tmp_path / str(size), rows=size, held_out=rows).evaluate()
        for size in (1, 4)
    ]
    assert losses[0]["eval_loss"] == pytest.approx(losses[1]["eval_loss"], rel=1e-5)


def test_every_token_is_counted_once(tiny_model: Path, tmp_path: Path) -> None:
    trainer = trainer_for(tiny_model, tmp_path, rows=4, accumulation=2)
    trainer.train()
    assert trainer.tokens_trained == sum(len(each.tokens) for each in examples(16))
    told = [each["num_tokens"] for each in trainer.state.log_history if "num_tokens" in each]
    assert told[-1] == trainer.tokens_trained


@pytest.mark.parametrize("optimizer", [Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT])
def test_the_whole_model_learns_with_8_bits_of_state(
    tiny_model: Path, tmp_path: Path, optimizer: Optimizer
) -> None:
    rows = examples(16)
    trainer = trainer_for(
        tiny_model, tmp_path, method=Method.FULL, optimizer=optimizer, held_out=rows
    )
    trainer.args.learning_rate = 1e-3
    before = {name: each.detach().clone() for name, each in trainer.model.named_parameters()}
    loss_before = trainer.evaluate()["eval_loss"]
    _, after = trained(trainer)
    assert trainer.evaluate()["eval_loss"] < loss_before - 0.1
    assert after.keys() == before.keys()
    assert all((after[name] - before[name]).abs().max() > 0 for name in before)


def test_without_unsloth_the_backend_is_refused_in_a_sentence(tiny_model: Path) -> None:
    plan = MemoryPlan(
        method=Method.LORA,
        micro_batch_size=1,
        gradient_accumulation=1,
        activation_checkpointing=ActivationCheckpointing.OFF,
        optimizer=Optimizer.ADAMW,
    )
    settings = engine_settings(plan, Lora(), TRAINING, Backend.UNSLOTH, on_gpu=False)
    with pytest.raises(TrainerError, match=r"install unsloth .* or set backend to Tunesmith") as it:
        prepare_model(tiny_model, "tiny", settings, torch.device("cpu"))
    assert it.value.reason is Reason.BACKEND_MISSING
