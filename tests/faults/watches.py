"""Disturbs the events of a watch on their way to the operator."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.faults.fault import Disturbance, WatchFault

GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "too old resource version",
        "reason": "Expired",
        "code": 410,
    },
}
GONE_LINE = json.dumps(GONE).encode() + b"\n"
#: How many events pass, at most, before a connection ends.
MOST_EVENTS = 6
LOST_SHARE = 0.5
#: A connection that loses events ends after so long: its next one begins with a gap.
GAP_SECONDS = 1.0
LATEST_SECONDS = 1.5

_Delays = Callable[[], tuple[float, ...]]


@dataclass
class DisturbedWatches:
    """All watches of one operator under one fault."""

    fault: WatchFault
    #: Events that were touched: none means that nothing was tried.
    touched: int = 0
    _random: random.Random = field(init=False)
    _gaps: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.fault.seed)

    def stream(self, target: str, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The events as the operator sees them; where this ends, the connection does."""
        match self.fault.disturbance:
            case Disturbance.CUT:
                return self._ending(events, b"")
            case Disturbance.GONE:
                return self._ending(events, GONE_LINE)
            case Disturbance.LOST:
                return self._losing(target, events)
            case Disturbance.DUPLICATED:
                return self._later(events, self._twice)
            case Disturbance.REORDERED:
                return self._later(events, self._whenever)
            case Disturbance.DELAYED:
                return self._later(events, self._late)

    async def _ending(self, events: AsyncIterator[bytes], last: bytes) -> AsyncIterator[bytes]:
        remaining = self._random.randint(1, MOST_EVENTS)
        async for event in events:
            yield event
            remaining -= 1
            if not remaining:
                self.touched += 1
                if last:
                    yield last
                return

    async def _losing(self, target: str, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A watch that begins after a gap is told so, and the operator has to list again."""
        if target in self._gaps:
            self._gaps.discard(target)
            yield GONE_LINE
            return
        async for event in events:
            if self._random.random() >= LOST_SHARE:
                yield event
                continue
            self.touched += 1
            self._gaps.add(target)
            # Whatever else comes in this time is lost, too.
            await asyncio.sleep(GAP_SECONDS)
            return

    async def _later(self, events: AsyncIterator[bytes], delays: _Delays) -> AsyncIterator[bytes]:
        """Every event after each of its delays, whatever comes meanwhile."""
        loop, waiting = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

        async def read() -> None:
            try:
                async for event in events:
                    for delay in delays():
                        loop.call_later(delay, waiting.put_nowait, event)
                    self.touched += 1
            finally:
                loop.call_later(LATEST_SECONDS, waiting.put_nowait, None)

        reading = asyncio.ensure_future(read())
        try:
            while (event := await waiting.get()) is not None:
                yield event
        finally:
            reading.cancel()

    def _twice(self) -> tuple[float, ...]:
        return 0.0, self._random.uniform(0, LATEST_SECONDS)

    def _whenever(self) -> tuple[float, ...]:
        return (self._random.uniform(0, LATEST_SECONDS),)

    def _late(self) -> tuple[float, ...]:
        return (LATEST_SECONDS,)
