"""One cell of the training benchmark: a model, a method and a trainer, measured in a process."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.memory import ActivationCheckpointing, MemoryPlan, Optimizer
from tunesmith.api.method import Lora, Method
from tunesmith.api.training import Backend, Training

if TYPE_CHECKING:
    from transformers import TrainerCallback

GIBIBYTE = 2**30
OFF, PARTIAL, FULL = (
    ActivationCheckpointing.OFF,
    ActivationCheckpointing.PARTIAL,
    ActivationCheckpointing.FULL,
)


@dataclass(frozen=True)
class Cell:
    """What is measured. ``rows`` are sequences of a micro-batch, each of ``length`` tokens."""

    name: str
    trainer: str
    method: Method
    rows: int
    shape: str = "8B"
    length: int = 2048
    checkpointing: ActivationCheckpointing = OFF
    accumulation: int = 1
    optimizer: Optimizer = Optimizer.ADAMW
    ragged: bool = False
    packing: bool = True
    dropout: float = 0.0
    warm: int = 3
    steps: int = 8
    #: Seconds after which the process is ended.
    limit: int = 150

    @property
    def title(self) -> str:
        """What it has in common with the cell of the other trainer."""
        return self.name.removesuffix("-trl").removesuffix("-packed").removesuffix("-padded")


@dataclass
class Stopwatch:
    """Counts the steps after the warm ones, with the device idle at both ends."""

    warm: int
    created: float = field(default_factory=time.monotonic)
    first_step_seconds: float = 0.0
    #: Step, time and tokens so far at the end of the last warm step and of the last step.
    laps: list[tuple[int, float, int]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.laps[1][0] - self.laps[0][0]

    @property
    def seconds(self) -> float:
        return self.laps[1][1] - self.laps[0][1]

    @property
    def tokens(self) -> int:
        return self.laps[1][2] - self.laps[0][2]

    def lap(self, step: int, last: int, tokens: int) -> None:
        wait_for_device()
        now = time.monotonic()
        if step == 1:
            self.first_step_seconds = now - self.created
        if step in (self.warm, last):
            self.laps.append((step, now, tokens))

    def callback(self, tokens: Any) -> TrainerCallback:
        from transformers import TrainerCallback

        watch = self

        class Laps(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                step, last = state.global_step, state.max_steps
                if step in (1, watch.warm, last):
                    watch.lap(step, last, int(tokens()))

        return Laps()


def wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(cell: Cell) -> dict[str, Any]:
    """Run the cell in this process."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = run_ours if cell.trainer == "ours" else run_trl
        watch, trainer = run(cell, device, dtype, Path(folder))
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {
        "tokens_per_second": watch.tokens / watch.seconds,
        "milliseconds_per_step": 1000 * watch.seconds / watch.steps,
        "first_step_seconds": watch.first_step_seconds,
        "whole_seconds": time.monotonic() - began,
        "loss": losses[-1] if losses else float("nan"),
        **memory(trainer),
    }


def memory(trainer: Any) -> dict[str, float]:
    """What torch allocated at most, and what bitsandbytes manages beside it, in bytes."""
    import torch

    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    managed = sum(
        tensor.nbytes
        for state in (optimizer.state.values() if optimizer else [])
        for tensor in state.values()
        if getattr(tensor, "is_paged", False)
    )
    if not torch.cuda.is_available():
        return {"peak_bytes": 0, "reserved_bytes": 0, "managed_bytes": managed}
    return {
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "managed_bytes": managed,
    }


def documents(cell: Cell) -> list[Any]:
    from tests.bench.training_models import SHAPES, full_documents, ragged_documents

    vocabulary = SHAPES[cell.shape]["vocab_size"]
    rows = cell.rows * cell.accumulation * (cell.warm + cell.steps)
    if not cell.ragged:
        return full_documents(rows, cell.length, vocabulary)
    wanted = rows * cell.length if cell.packing else rows * 400
    return ragged_documents(wanted, cell.length, vocabulary)


# --- ours ----------------------------------------------------------------------------------------


def run_ours(cell: Cell, device: Any, dtype: Any, folder: Path) -> tuple[Stopwatch, Any]:
    """The trainer's own code, from the loaded model on."""
    from tunesmith_trainer.train.engine import attention
    from tunesmith_trainer.train.engine.build import equip
    from tunesmith_trainer.train.settings import engine_settings

    from tests.bench.training_models import random_model

    settings = engine_settings(
        memory_plan(cell),
        Lora(dropout=cell.dropout),
        Training(max_length=cell.length),
        Backend.TUNESMITH,
        on_gpu=device.type == "cuda",
    )
    name = attention.register()
    model = random_model(cell.shape, name, device, dtype, quantised=cell.method.is_quantised)
    return train_ours(cell, equip(model, cell.name, settings), folder, device.type == "cuda")


def train_ours(cell: Cell, model: Any, folder: Path, on_gpu: bool) -> tuple[Stopwatch, Any]:
    from transformers import PrinterCallback
    from tunesmith_trainer.train.engine.packing import Collator, rows_of
    from tunesmith_trainer.train.engine_trainer import EngineTrainer
    from tunesmith_trainer.train.settings import arguments

    training = Training(epochs=1, max_length=cell.length)
    args = arguments(training, memory_plan(cell), folder, on_gpu=on_gpu)
    args.max_steps = cell.warm + cell.steps
    args.load_best_model_at_end = False
    args.eval_strategy = args.save_strategy = "no"
    trainer = EngineTrainer(
        model=model,
        args=args,
        collator=Collator(cell.length, cell.length * cell.rows),
        train_rows=rows_of(documents(cell), cell.length, packing=True),
    )
    trainer.remove_callback(PrinterCallback)
    watch = Stopwatch(cell.warm)
    trainer.add_callback(watch.callback(lambda: trainer.tokens_trained))
    trainer.train()
    return watch, trainer


def memory_plan(cell: Cell) -> MemoryPlan:
    return MemoryPlan(
        method=cell.method,
        micro_batch_size=cell.rows,
        gradient_accumulation=cell.accumulation,
        activation_checkpointing=cell.checkpointing,
        optimizer=cell.optimizer,
    )


# --- TRL as it comes -----------------------------------------------------------------------------


def run_trl(cell: Cell, device: Any, dtype: Any, folder: Path) -> tuple[Stopwatch, Any]:
    """SFTTrainer with its defaults; what it is told is the data's shape and the method."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from tests.bench.training_models import SHAPES, random_model, word_tokenizer

    quantised = cell.method.is_quantised
    model = random_model(cell.shape, "sdpa", device, dtype, quantised=quantised)
    paged = {"optim": "paged_adamw_8bit"} if cell.method is Method.FULL else {}
    args = SFTConfig(
        output_dir=str(folder),
        max_length=cell.length,
        per_device_train_batch_size=cell.rows,
        gradient_accumulation_steps=cell.accumulation,
        packing=cell.ragged and cell.packing,
        max_steps=cell.warm + cell.steps,
        # Once, so that the loss is known even of fewer steps than TRL logs after.
        logging_steps=cell.warm + cell.steps,
        bf16=device.type == "cuda",
        use_cpu=device.type != "cuda",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **paged,
    )
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=Lora().target_modules,
        use_dora=cell.method.is_dora,
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict({"input_ids": [each.tokens for each in documents(cell)]}),
        processing_class=word_tokenizer(SHAPES[cell.shape]["vocab_size"]),
        peft_config=None if cell.method is Method.FULL else lora,
    )
    trainer.remove_callback(PrinterCallback)
    watch = Stopwatch(cell.warm)
    trainer.add_callback(watch.callback(lambda: trainer._total_train_tokens))
    trainer.train()
    return watch, trainer


# --- the card itself -----------------------------------------------------------------------------


def card_peak() -> float:
    """bf16 TFLOP/s of a product of two random 8192 x 8192 matrices, the best of five tries."""
    import torch

    if not torch.cuda.is_available():
        return float("nan")
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        wait_for_device()
        began = time.monotonic()
        for _ in range(20):
            left @ right
        wait_for_device()
        best = max(best, 20 * 2 * 8192**3 / (time.monotonic() - began) / 1e12)
    return best
