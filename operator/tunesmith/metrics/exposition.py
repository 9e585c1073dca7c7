"""Everything at once, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from prometheus_client import Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from tunesmith.kube.lease import Lease
from tunesmith.kube.store import Store
from tunesmith.kube.workqueue import WorkQueue
from tunesmith.metrics.activity import REGISTRY
from tunesmith.metrics.census import Census
from tunesmith.metrics.operation import operation

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Exposition:
    """What ``/metrics`` answers."""

    def __init__(self, store: Store, queue: WorkQueue, lease: Lease) -> None:
        self._census = Census(store)
        self._queue = queue
        self._lease = lease

    async def text(self) -> bytes:
        """In Prometheus' text format; written in a thread, as thousands of lines take a while."""
        await self._census.count()
        now = operation(self._queue, self._lease)
        return await asyncio.to_thread(generate_latest, _Together(REGISTRY, self._census, now))


class _Together(Collector):
    """What these tell, one after the other."""

    def __init__(self, registry: Collector, census: Collector, now: Iterable[Metric]) -> None:
        self._collectors = registry, census
        self._now = now

    def collect(self) -> Iterator[Metric]:
        for each in self._collectors:
            yield from each.collect()
        yield from self._now
