"""Stopping in order: the pod was told to go, and the running step is finished first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tunesmith_trainer.processes import any_of_all


class StopRequest:
    """Whether this process, or any that works with it, was told to stop."""

    def __init__(self) -> None:
        self._told = False
        self._agreed = False

    def tell(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._told = True

    def agreed(self) -> bool:
        """All processes get the same answer, so all must ask at the same points of their work."""
        self._agreed = self._agreed or any_of_all(self._told)
        return self._agreed

    @property
    def known(self) -> bool:
        """The last answer, without asking the others again."""
        return self._agreed


@contextmanager
def stops_at_the_end_of_a_step() -> Iterator[StopRequest]:
    """Within the block SIGTERM is remembered; before and after, it ends the work at once."""
    request = StopRequest()
    before = signal.signal(signal.SIGTERM, request.tell)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
