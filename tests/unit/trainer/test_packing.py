"""Packed examples do not see each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith.api.method import Lora
from tunesmith.api.trainer_contract import PLAN_READER, TrainingPlan
from tunesmith.api.training import Training

torch = pytest.importorskip("torch")

from tunesmith_trainer.data.chat import Example, load_chat_format  # noqa: E402
from tunesmith_trainer.progress import ProgressBoard  # noqa: E402
from tunesmith_trainer.train.recipe import build_trainer  # noqa: E402

EXAMPLES = [
    Example(tokens=[1, *range(start, start + length)], prompt_length=length // 2)
    for start, length in ((10, 9), (40, 14), (70, 6), (100, 11))
]


def trainer_for(tiny_model: Path, folder: Path, *, packing: bool):  # type: ignore[no-untyped-def]
    plan = PLAN_READER.validate_python(
        {
            "kind": "Training",
            "owner": "team/job",
            "base_model": {"uri": "pvc://models/tiny", "path": str(tiny_model)},
            "dataset": {"uri": "pvc://data/x.jsonl"},
            "held_out": {},
            "method": "LoRA",
            "lora": Lora(dropout=0),
            "training": Training(
                epochs=1, packing=packing, max_length=48, batch_size=4, micro_batch_size=4
            ),
            "output": {"uri": "pvc://adapters"},
            "image": "test",
        }
    )
    assert isinstance(plan, TrainingPlan)
    chat = load_chat_format(tiny_model, "pvc://models/tiny")
    return build_trainer(plan, tiny_model, chat, EXAMPLES, EXAMPLES, folder, ProgressBoard())


def test_logits_of_a_packed_example_are_those_of_the_example_alone(
    tiny_model: Path, tmp_path: Path
) -> None:
    trainer = trainer_for(tiny_model, tmp_path, packing=True)
    (batch,) = list(trainer.get_train_dataloader())
    assert batch["input_ids"].shape == (1, sum(len(example.tokens) for example in EXAMPLES))
    model = trainer.model.eval().float()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        packed = model(**inputs).logits[0]
        starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], packed.shape[0]]
        assert len(starts) == len(EXAMPLES)
        for start, end in zip(starts, ends, strict=True):
            alone = model(batch["input_ids"][:, start:end]).logits[0]
            torch.testing.assert_close(packed[start:end], alone, atol=1e-5, rtol=1e-4)


def test_neighbours_would_be_noticed(tiny_model: Path, tmp_path: Path) -> None:
    """The check above can fail: without positions the same batch gives other logits."""
    trainer = trainer_for(tiny_model, tmp_path, packing=True)
    (batch,) = list(trainer.get_train_dataloader())
    model = trainer.model.eval().float()
    end = int((batch["position_ids"][0] == 0).nonzero()[2])
    start = int((batch["position_ids"][0] == 0).nonzero()[1])
    with torch.no_grad():
        contaminated = model(batch["input_ids"]).logits[0, start:end]
        alone = model(batch["input_ids"][:, start:end]).logits[0]
    assert (contaminated - alone).abs().max() > 1e-3


def test_packed_and_padded_training_have_the_same_loss(tiny_model: Path, tmp_path: Path) -> None:
    losses = []
    for packing in (True, False):
        trainer = trainer_for(tiny_model, tmp_path / str(packing), packing=packing)
        (batch,) = list(trainer.get_train_dataloader())
        trainer.model.eval().float()
        with torch.no_grad():
            losses.append(float(trainer.compute_loss(trainer.model, dict(batch))))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_quick_loss_is_the_loss_of_the_library(tiny_model: Path, tmp_path: Path) -> None:
    """Cross-entropy over the labelled tokens, as transformers computes it."""
    trainer = trainer_for(tiny_model, tmp_path, packing=False)
    (batch,) = list(trainer.get_train_dataloader())
    trainer.model.eval().float()
    with torch.no_grad():
        quick = float(trainer.compute_loss(trainer.model, dict(batch)))
        library = float(trainer.model.get_base_model()(**batch).loss)
    assert quick == pytest.approx(library, abs=1e-5)
