"""Processes that train, started without waiting for torch each time.

A server process imports the heavy libraries once; each process of a test is forked from it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.api.trainer_contract import TerminationMessage, TrainingPlan

HEAVY = ["peft", "accelerate", "tunesmith_trainer.train.lasting"]
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(HEAVY)

Preparing = Callable[[], None]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def compute_exactly() -> None:
    """In 32 bits, where other sums of the same numbers are nearly the same."""
    from tunesmith_trainer import machine

    machine.has_bfloat16_products = lambda: False


def kill_at(step: int) -> None:
    """End this process after a step, as a lost node would, with a checkpoint after each step."""
    from tunesmith_trainer.train import keeping

    keeping.SECONDS_PER_MINUTE = 0
    saved = keeping.Keeping.on_save

    def on_save(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        saved(self, args, state, control, **rest)
        if state.global_step >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    keeping.Keeping.on_save = on_save  # type: ignore[method-assign]


def terminate_at(step: int) -> None:
    """Tell the last process alone to go, during a step."""
    from tunesmith_trainer.processes import rank, world_size
    from tunesmith_trainer.train.watch import Watch

    stepped = Watch.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        stepped(self, args, state, control, **rest)
        if state.global_step == step and rank() == world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    Watch.on_step_end = on_step_end  # type: ignore[method-assign]


def work(
    plan: Path, ending: Path, environment: dict[str, str], before: Sequence[Preparing]
) -> None:
    os.environ.update(environment)
    import torch
    from tunesmith_trainer.main import main

    torch.set_num_threads(1)
    for prepare in before:
        prepare()
    arguments = ["--plan", str(plan), "--termination", str(ending), "--port", "0"]
    code = main(arguments)
    # Without the interpreter's own end, which waits for threads of libraries.
    os._exit(code)


def train_in_processes(
    plan: TrainingPlan, folder: Path, *before: Preparing, count: int = 1
) -> tuple[list[int | None], list[TerminationMessage]]:
    """Exit codes and last words of so many processes with one plan, by rank."""
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json(by_alias=True))
    port = str(free_port())
    started = []
    endings = [folder / f"end-{rank}.json" for rank in range(count)]
    for rank, ending in enumerate(endings):
        ending.unlink(missing_ok=True)
        environment = {"OMP_NUM_THREADS": "1"}
        if count > 1:
            environment |= {
                **{"RANK": str(rank), "LOCAL_RANK": str(rank)},
                **{"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
                "TUNESMITH_ENDINGS": "",
            }
        process = context.Process(target=work, args=(path, ending, environment, before))
        process.start()
        started.append(process)
    for process in started:
        process.join(timeout=240)
        if process.is_alive():
            process.kill()
    words = [
        TerminationMessage.model_validate_json(ending.read_bytes())
        for ending in endings
        if ending.exists()
    ]
    return [process.exitcode for process in started], words
