"""What /metrics says of a store, a queue and a lease, read as Prometheus reads it."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tunesmith.kube.key import Key
from tunesmith.kube.lease import Lease
from tunesmith.kube.store import Store
from tunesmith.kube.workqueue import Pass, WorkQueue
from tunesmith.metrics.exposition import Exposition

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class HeldLease(Lease):
    """A lease that is held. A fake, as to hold one takes an API server."""

    def __init__(self, held: bool = True) -> None:
        self.held = held


async def nothing(_: Key) -> Pass:
    return Pass()


def exposition(store: Store, queue: WorkQueue | None = None, held: bool = True) -> Exposition:
    return Exposition(store, queue or WorkQueue(nothing, 1), HeldLease(held))


class Told:
    """The samples of one scrape."""

    def __init__(self, text: bytes) -> None:
        self.families = list(text_string_to_metric_families(text.decode()))
        self.samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for each, labels in self.samples if each == name]


async def told(source: Exposition | Store) -> Told:
    asked = exposition(source) if isinstance(source, Store) else source
    return Told(await asked.text())


def kept(kind: str, name: str, version: int = 1, **status: Any) -> dict[str, Any]:
    """An object of ours as a watch tells of it."""
    metadata = {"name": name, "namespace": "team", "resourceVersion": str(version)}
    return {"kind": kind, "metadata": metadata, **({"status": status} if status else {})}


def condition(type_: str, status: str, reason: str, since: str = "2026-01-01T12:00:00Z") -> Any:
    return {"type": type_, "status": status, "reason": reason, "lastTransitionTime": since}
