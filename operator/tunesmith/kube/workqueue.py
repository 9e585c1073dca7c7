"""A keyed work queue: each key is worked on by one worker at a time, and never forgotten.

The semantics are those of client-go's work queue: a key that is added while it waits is not added
twice; one that is added while it is being worked on is worked on once more afterwards. What is new
goes before what changed, and that before what is merely looked at again: a new job does not wait
until thousands of finished ones were looked at after a restart. Within a lane namespaces take
turns: nobody waits for the thousand objects that another tenant has just applied.

So many passes are under way at once as there are workers, but for those that wait for a pod: one
that does not answer keeps nobody else from being worked on.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from enum import IntEnum
from itertools import count

from tunesmith.kube.key import Key
from tunesmith.kube.measuring import measured_pass
from tunesmith.metrics.activity import QUEUE_SECONDS, PassOutcome

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 120.0


class Lane(IntEnum):
    """How soon a key is worked on; the lower first."""

    #: Objects that nobody has looked at yet: a person waits for them to do anything at all.
    NEW = 0
    CHANGED = 1
    ROUTINE = 2


@dataclass(frozen=True)
class Pass:
    """What a reconcile pass asks of the queue."""

    requeue_after: float | None = None


class PassFailed(Exception):  # noqa: N818 - says what it is
    """A pass that came to nothing for a reason that its message tells: no error of ours.

    ``reason`` is one word for it, which failures are counted by.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


Reconcile = Callable[[Key], Awaitable[Pass]]


class WorkQueue:
    """Runs ``reconcile`` for every key that is added, with bounded workers."""

    def __init__(self, reconcile: Reconcile, workers: int) -> None:
        self._reconcile = reconcile
        #: Workers that have nothing to do. Fewer than none while passes go on that waited for a
        #: pod, as nobody makes them wait a second time.
        self._free = workers
        #: Where passes run; None until the queue itself runs.
        self._passes: asyncio.TaskGroup | None = None
        self._context = copy_context()
        #: A heap.
        self._ready: list[tuple[Lane, int, int, Key]] = []
        self._order = count()
        #: Start-time fair queueing: the turn that each lane has come to, and the next one that each
        #: namespace may have in it.
        self._turn: dict[Lane, int] = {}
        self._next_turn: dict[tuple[Lane, str], int] = {}
        self._waiting: dict[Key, Lane] = {}
        self._waiting_since: dict[Key, float] = {}
        #: Keys being worked on, and since when.
        self._working: dict[Key, float] = {}
        self._again: dict[Key, Lane] = {}
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def oldest_pass_started(self) -> float:
        """When the longest-running pass began, in time.monotonic(); now if none is running."""
        return min(self._working.values(), default=time.monotonic())

    def depth(self) -> Counter[Lane]:
        """Keys that wait, by lane."""
        return Counter(self._waiting.values())

    def failing(self) -> int:
        """Keys whose last pass failed."""
        return len(self._failures)

    def add(self, key: Key, lane: Lane = Lane.CHANGED) -> None:
        """Work on this key as soon as a worker is free."""
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._working:
            self._again[key] = min(lane, self._again.get(key, lane))
        elif lane < self._waiting.get(key, len(Lane)):
            # Where it waits in a slower lane, that place is passed over later.
            if not self._waiting:
                self._turn.clear()
                self._next_turn.clear()
            self._waiting[key] = lane
            self._waiting_since.setdefault(key, time.monotonic())
            whose = lane, key.namespace
            turn = max(self._turn.get(lane, 0), self._next_turn.get(whose, 0))
            self._next_turn[whose] = turn + 1
            heapq.heappush(self._ready, (lane, turn, next(self._order), key))
            self._begin()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key later; an earlier timer or event wins."""
        due = asyncio.get_running_loop().time() + seconds
        timer = self._timers.get(key)
        if timer and timer.when() <= due:
            return
        if timer:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(due, self._on_timer, key)

    def _on_timer(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key, Lane.ROUTINE)

    async def run(self) -> None:
        """Work until cancelled. A pass that dies takes the process with it: no silent halt."""
        async with asyncio.TaskGroup() as self._passes:
            try:
                self._begin()
                await asyncio.Event().wait()
            finally:
                self._passes = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While a pass waits for something else than the API server, another one may work."""
        self._free += 1
        self._begin()
        try:
            yield
        finally:
            self._free -= 1

    def _begin(self) -> None:
        """Give what waits to workers, as far as there are any."""
        while self._passes and self._free > 0 and self._ready:
            lane, turn, _, key = heapq.heappop(self._ready)
            if self._waiting.get(key) != lane:
                continue
            self._turn[lane] = turn
            del self._waiting[key]
            self._working[key] = now = time.monotonic()
            QUEUE_SECONDS.labels(lane.name.lower()).observe(now - self._waiting_since.pop(key))
            self._free -= 1
            # Not in the context of whoever has just ended: what it was about is not this one's.
            work, context = self._work(key), self._context.copy()
            self._passes.create_task(work, name=f"pass of {key}", context=context)

    async def _work(self, key: Key) -> None:
        try:
            await self._one_pass(key)
        finally:
            del self._working[key]
            self._free += 1
        if key in self._again:
            self.add(key, self._again.pop(key))
        self._begin()

    async def _one_pass(self, key: Key) -> None:
        with measured_pass(key) as told:
            try:
                outcome = await self._reconcile(key)
            except PassFailed as failure:
                told.failed(PassOutcome.REFUSED, failure.reason)
                log.warning("%s: pass failed: %s; %s", key, failure, self._try_again(key))
                return
            except Exception as error:
                # Whatever one object does to us must not stop the others.
                told.failed(PassOutcome.ERROR, type(error).__name__)
                log.exception("%s: pass failed; %s", key, self._try_again(key))
                return
        self._failures.pop(key, None)
        if outcome.requeue_after is not None:
            self.add_after(key, outcome.requeue_after)

    def _try_again(self, key: Key) -> str:
        """Later, the more often it failed; gives the words for it."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = retry_delay(failures)
        self.add_after(key, delay)
        return f"{failures} in a row, again in {delay:.1f}s"


def retry_delay(failures: int) -> float:
    """Doubling from FIRST_RETRY_SECONDS, with up to a quarter of jitter."""
    delay = min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 20), LONGEST_RETRY_SECONDS)
    return float(delay * random.uniform(1.0, 1.25))
