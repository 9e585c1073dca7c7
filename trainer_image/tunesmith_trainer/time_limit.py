"""Ending what may never end: what strangers wrote is run here, or matched."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from tunesmith_trainer.failure import TrainerError


@contextmanager
def in_time(seconds: float, too_late: TrainerError) -> Iterator[None]:
    """Raises the error unless the block ends in time, where a signal can interrupt it: in the
    first thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise too_late

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
