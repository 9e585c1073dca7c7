"""Reading what strangers wrote, in a process of its own: how long it took, and what memory."""

from __future__ import annotations

import os
import pickle
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunesmith.api.trainer_contract import Reason
from tunesmith_trainer.failure import TrainerError


@dataclass(frozen=True)
class Ended:
    """What came of it. ``told`` is the reason and the sentence, None where nothing was refused."""

    told: tuple[Reason, str] | None
    processor_seconds: float
    #: Beyond what the process had when it began.
    more_bytes: int


def measured(read: Callable[[], Any]) -> Ended:
    """Run it in a fork. Fails if it ends otherwise than well or with a TrainerError."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _report(read, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        content = answers.read()
    status = os.waitpid(child, 0)[1]
    assert content, f"it ended without a word, with status {status}"
    ended = pickle.loads(content)
    assert isinstance(ended, Ended), ended
    return ended


def _report(read: Callable[[], Any], writer: int) -> None:
    """In the child, which must not come back into the test."""
    found: Ended | str = "nothing"
    try:
        before, began = _peak_bytes(), time.process_time()
        told = None
        try:
            read()
        except TrainerError as error:
            told = error.reason, error.message
        found = Ended(told, time.process_time() - began, _peak_bytes() - before)
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
    finally:
        os.write(writer, pickle.dumps(found))
        os._exit(0)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
