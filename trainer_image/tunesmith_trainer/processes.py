"""The processes of one training: which of them this is, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from tunesmith.api.trainer_contract import ReportedFailure

from tunesmith_trainer.failure import TrainerError, failure_from

T = TypeVar("T")

#: The first process may read a model of hundreds of gigabytes while the others wait for it.
TIMEOUT = timedelta(hours=2)


def rank() -> int:
    """0 for the first process, which alone reports and writes."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first() -> bool:
    return rank() == 0


def are_several() -> bool:
    return world_size() > 1


def join() -> None:
    """Meet the other processes. Nothing to do for a single one."""
    if not are_several():
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)


def part() -> None:
    """Leave in order, so that nobody takes a closed connection for a failure."""
    if not are_several():
        return
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def from_first(compute: Callable[[], T]) -> T:
    """What the first process computes; the others wait for it.

    If it fails, the others fail for the same reason, instead of waiting for what never comes.
    """
    if not are_several():
        return compute()
    from accelerate.utils import broadcast_object_list

    told: list[tuple[T | None, ReportedFailure | None]] = [(None, None)]
    error: Exception | None = None
    if is_first():
        try:
            told = [(compute(), None)]
        except Exception as raised:
            error = raised
            told = [(None, failure_from(raised))]
    broadcast_object_list(told, from_process=0)
    answer, failure = told[0]
    if error is not None:
        raise error
    if failure is not None:
        raise TrainerError(failure.reason, failure.message)
    return answer  # type: ignore[return-value]


def gathered_objects(mine: T) -> list[T]:
    """One of each process, by rank."""
    if not are_several():
        return [mine]
    from accelerate.utils import gather_object

    everyone: list[T] = gather_object([mine])
    return everyone


def any_of_all(mine: bool) -> bool:
    """Whether it is so for any process. All must ask."""
    if not are_several():
        return mine
    import torch
    from torch import distributed

    on = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    flag = torch.tensor([int(mine)], device=on)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())


def wait_for_all() -> None:
    if not are_several():
        return
    from torch import distributed

    distributed.barrier()
