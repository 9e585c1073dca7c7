"""Training on several GPUs of one machine, by the trainer's own engine, order and checkpoints.

Each cell is a torchrun of its own with a randomly initialised model:

- the speed of LoRA on an 8B shape with one process, with two under DDP and under FSDP2;
- the loss after 20 steps, at equal effective batch and seed;
- a checkpoint of two processes that one goes on from, and the other way round;
- a 70B shape with QLoRA over two GPUs.

    python -m tests.bench.several_gpus                     two GPUs
    python -m tests.bench.several_gpus --shape tiny --big-shape tiny --length 64    on the CPU
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.memory import ActivationCheckpointing, MemoryPlan, Optimizer, Parallelism
from tunesmith.api.method import Lora, Method
from tunesmith.api.training import Backend, Training

from tests.bench.results import FOLDER, Figure, tell

if TYPE_CHECKING:
    from tunesmith_trainer.train.lasting import LastingTrainer

#: Of the loss of the same steps in bfloat16: sums of other order differ by less than this.
BF16_NOISE = 0.01
SCALING = ">= 0.95"
LOSS_STEPS = 20
HALFWAY = 10
#: From so many processes to so many. The unit tests have each way with both.
HANDOVERS = ((2, 1, Parallelism.DDP), (1, 2, Parallelism.FSDP2))
GIB = 2**30


@dataclass(frozen=True)
class Cell:
    """One torchrun."""

    name: str
    shape: str
    method: Method
    processes: int
    parallelism: Parallelism | None
    rows: int
    accumulation: int
    steps: int
    length: int = 2048
    checkpointing: ActivationCheckpointing = ActivationCheckpointing.OFF
    #: Folder of checkpoints; the last step is saved, and what is there is gone on from.
    checkpoints: str | None = None
    #: Steps that the schedule is made for, where this cell stops earlier.
    of_steps: int | None = None


@dataclass(frozen=True)
class Measured:
    tokens_per_second: float
    peak_bytes: int
    losses: list[float]


# --- one process of a cell -----------------------------------------------------------------------


def work(cell: Cell, answer: Path) -> None:
    from tunesmith_trainer import machine, processes

    machine.prepare_environment()
    processes.join()
    measured = train(cell)
    if processes.is_first():
        answer.write_text(json.dumps(asdict(measured)))
    processes.part()


def train(cell: Cell) -> Measured:
    from transformers import PrinterCallback
    from tunesmith_trainer import machine
    from tunesmith_trainer.output import FolderStore
    from tunesmith_trainer.progress import ProgressBoard
    from tunesmith_trainer.train.checkpoints import Checkpoints
    from tunesmith_trainer.train.watch import Watch

    machine.use_all_processors()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(cell, Path(folder))
        board = ProgressBoard()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Watch(board, trainer.order))
        found = None
        if cell.checkpoints:
            store = FolderStore("pvc://bench", Path(cell.checkpoints))
            trainer.checkpoints = Checkpoints(store, base_model_digest="random")
            found = trainer.checkpoints.newest()
            trainer.add_callback(saving_at(cell.steps))
        trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
    progress = board.training()
    return Measured(
        tokens_per_second=progress.tokens_per_second or 0.0,
        peak_bytes=progress.peak_memory_bytes or 0,
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    )


def trainer_of(cell: Cell, folder: Path) -> LastingTrainer:
    import torch
    from tunesmith_trainer import machine
    from tunesmith_trainer.train.engine import attention
    from tunesmith_trainer.train.engine.build import equip
    from tunesmith_trainer.train.engine.packing import Collator, rows_of
    from tunesmith_trainer.train.lasting import LastingTrainer
    from tunesmith_trainer.train.settings import arguments, engine_settings
    from tunesmith_trainer.train.sharding import shard

    from tests.bench.training_models import SHAPES, full_documents, random_model

    device = machine.device()
    on_gpu = device.type == "cuda"
    training = Training(epochs=1, max_length=cell.length, learning_rate=1e-4)
    memory = memory_plan(cell)
    settings = engine_settings(memory, Lora(dropout=0), training, Backend.TUNESMITH, on_gpu=on_gpu)
    args = arguments(training, memory, folder, on_gpu=on_gpu)
    # float32 on CPUs, where the benchmark itself is tried: then equal means equal.
    dtype = machine.compute_type(device) if on_gpu else torch.float32
    model = random_model(
        cell.shape, attention.register(), device, dtype, quantised=cell.method.is_quantised
    )
    model = equip(model, cell.name, settings)
    if cell.parallelism is Parallelism.FSDP2:
        model = shard(model)
    steps = cell.of_steps or cell.steps
    count = steps * cell.rows * cell.accumulation * cell.processes
    documents = full_documents(count, cell.length, SHAPES[cell.shape]["vocab_size"])
    return LastingTrainer(
        model=model,
        args=args,
        collator=Collator(cell.length, cell.length * cell.rows),
        train_rows=rows_of(documents, cell.length, packing=True),
    )


def memory_plan(cell: Cell) -> MemoryPlan:
    return MemoryPlan(
        method=cell.method,
        micro_batch_size=cell.rows,
        gradient_accumulation=cell.accumulation,
        activation_checkpointing=cell.checkpointing,
        optimizer=Optimizer.ADAMW,
        parallelism=cell.parallelism,
        processes=cell.processes,
    )


def saving_at(step: int) -> Any:
    """Save at this step, and end there."""
    from transformers import TrainerCallback

    class Saving(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step:
                control.should_save = True
                control.should_training_stop = True

    return Saving()


# --- all cells -----------------------------------------------------------------------------------


def run(cell: Cell) -> Measured:
    """Raises CalledProcessError if the cell does not end well."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                f"--nproc-per-node={cell.processes}",
                *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
                *("-m", "tests.bench.several_gpus", "--cell", json.dumps(asdict(cell))),
                *("--answer", str(answer)),
            ],
            check=True,
            env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        )
        measured = Measured(**json.loads(answer.read_text()))
    print(
        f"{cell.name}: {measured.tokens_per_second:,.0f} tokens/s, "
        f"{measured.peak_bytes / GIB:.1f} GiB, last loss {measured.losses[-1]:.4f}",
        flush=True,
    )
    return measured


def speed(options: argparse.Namespace) -> list[Figure]:
    def cell(name: str, processes: int, parallelism: Parallelism | None) -> Cell:
        return Cell(
            f"LoRA {options.shape}, {name}",
            options.shape,
            Method.LORA,
            processes,
            parallelism,
            rows=options.rows,
            accumulation=1,
            steps=options.steps,
            length=options.length,
        )

    one = run(cell("1 process", 1, None))
    figures = [Figure("LoRA, 1 process", one.tokens_per_second, "tokens/s")]
    for parallelism in (Parallelism.DDP, Parallelism.FSDP2):
        two = run(cell(f"2 processes {parallelism}", 2, parallelism))
        scaling = two.tokens_per_second / one.tokens_per_second / 2
        figures += [
            Figure(f"LoRA, 2 processes, {parallelism}", two.tokens_per_second, "tokens/s"),
            Figure(f"scaling, {parallelism}", scaling, "", options.scaling),
        ]
    return figures


def equality(options: argparse.Namespace, folder: Path) -> list[Figure]:
    """Losses of the last step against one process that is never interrupted."""

    def cell(name: str, processes: int, parallelism: Parallelism | None, **changes: Any) -> Cell:
        return Cell(
            f"equality, {name}",
            options.shape,
            Method.LORA,
            processes,
            parallelism,
            rows=1,
            accumulation=2 // processes,
            **{"steps": LOSS_STEPS, "length": options.length, **changes},
        )

    one = run(cell("1 process", 1, None)).losses
    figures = []

    def compare(name: str, losses: list[float]) -> None:
        distance = max(abs(a - b) for a, b in zip(one, losses, strict=True))
        figures.append(
            Figure(f"largest distance of losses, {name}", distance, "", f"< {BF16_NOISE}")
        )

    for parallelism in (Parallelism.DDP, Parallelism.FSDP2):
        compare(f"2 {parallelism}", run(cell(f"2 {parallelism}", 2, parallelism)).losses)
    for first, second, parallelism in HANDOVERS:
        name = f"{first} then {second} {parallelism}"
        place = {"checkpoints": str(folder / name.replace(" ", "-"))}
        half = {"steps": HALFWAY, "of_steps": LOSS_STEPS, **place}
        kinds = {1: None, 2: parallelism}
        run(cell(f"{name}, first half", first, kinds[first], **half))
        compare(name, run(cell(name, second, kinds[second], **place)).losses)
    return figures


def big(options: argparse.Namespace) -> list[Figure]:
    figures = []
    for parallelism in options.big_parallelisms:
        measured = run(
            Cell(
                f"QLoRA {options.big_shape}, 2 processes {parallelism}",
                options.big_shape,
                Method.QLORA,
                2,
                parallelism,
                rows=options.big_rows,
                accumulation=1,
                steps=options.big_steps,
                length=options.length,
                checkpointing=ActivationCheckpointing.FULL,
            )
        )
        figures += [
            Figure(
                f"QLoRA {options.big_shape}, {parallelism}, each GPU",
                measured.tokens_per_second / 2,
                "tokens/s",
            ),
            Figure(
                f"QLoRA {options.big_shape}, {parallelism}, peak", measured.peak_bytes / GIB, "GiB"
            ),
        ]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="8B")
    parser.add_argument("--big-shape", default="70B")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--big-rows", type=int, default=4)
    parser.add_argument("--big-steps", type=int, default=5)
    parser.add_argument(
        "--big-parallelisms",
        nargs="+",
        type=Parallelism,
        default=[Parallelism.DDP, Parallelism.FSDP2],
    )
    parser.add_argument("--scaling", default=SCALING, help="what scaling must be; empty on CPUs")
    parser.add_argument("--parts", nargs="+", default=["speed", "equality", "big"])
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        work(cell_from(json.loads(options.cell)), options.answer)
        return 0
    figures: list[Figure] = []
    all_hold = True
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            match part:
                case "speed":
                    figures += speed(options)
                case "equality":
                    figures += equality(options, Path(folder))
                case "big":
                    figures += big(options)
            # After each part, as a lent machine may be taken back.
            all_hold = tell("several-gpus", figures, Path(os.environ.get("OUT", FOLDER)))
    return 0 if all_hold else 1


def cell_from(raw: dict[str, Any]) -> Cell:
    raw["method"] = Method(raw["method"])
    raw["parallelism"] = Parallelism(raw["parallelism"]) if raw["parallelism"] else None
    raw["checkpointing"] = ActivationCheckpointing(raw["checkpointing"])
    return Cell(**raw)


if __name__ == "__main__":
    sys.exit(main())
