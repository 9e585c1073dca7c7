"""The objects there are, counted when Prometheus asks: what changes meanwhile costs nothing.

Only what changed since the last time is read, a few at a time, so that passes are not kept waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tunesmith.api.objects import Kind
from tunesmith.api.verdict import Verdict
from tunesmith.kube.key import Key
from tunesmith.kube.store import Store
from tunesmith.metrics.activity import GPU_SECONDS, VERDICTS
from tunesmith.metrics.facts import NEW, Facts, facts, is_under_way

#: About a millisecond of work.
OBJECTS_AT_A_TIME = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """One object, and since when it has been in its state, in time.monotonic()."""

    version: int
    facts: Facts
    since: float


class Census(Collector):
    """Tells what ``count`` last found."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[Key, Seen] = {}

    async def count(self) -> None:
        """Look at what is new or has changed."""
        before, seen = self._seen, dict[Key, Seen]()
        looked_at = 0
        for kind in Kind:
            for key, version in list(self._store.versions(kind)):
                known = before.get(key)
                if known is None:
                    _count_from_zero(key)
                if known is None or known.version != version:
                    known = self._look_at(key, version, known)
                    looked_at += 1
                    if looked_at % OBJECTS_AT_A_TIME == 0:
                        await asyncio.sleep(0)
                seen[key] = known
        self._seen = seen

    def _look_at(self, key: Key, version: int, before: Seen | None) -> Seen:
        raw = self._store.get(key.kind, key.namespace, key.name)
        found = facts(key.kind, raw) if raw else Facts(NEW)
        same = before is not None and before.facts.state == found.state
        return Seen(version, found, before.since if before and same else time.monotonic())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called in a thread; ``count`` never changes what it once put in place."""
        seen = self._seen
        yield from _states(seen)
        yield _stalled(seen)
        yield _under_way(seen)
        yield _bad_ends(seen)
        yield _usage(seen)
        yield from _adapters(seen)


def _count_from_zero(key: Key) -> None:
    """A counter that begins with its first event shows no increase for that one."""
    match key.kind:
        case Kind.FINE_TUNE_JOB:
            GPU_SECONDS.labels(key.namespace)
        case Kind.EVAL_RUN:
            for verdict in Verdict:
                VERDICTS.labels(key.namespace, verdict)


def _states(seen: dict[Key, Seen]) -> Iterator[GaugeMetricFamily]:
    counted: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for key, each in seen.items():
        counted[key.kind][key.namespace, each.facts.state] += 1
    for kind in Kind:
        name = f"tunesmith_{kind.lower()}s"
        told = GaugeMetricFamily(name, f"{kind}s by state.", labels=("namespace", "state"))
        for labels, number in sorted(counted[kind].items()):
            told.add_metric(labels, number)
        yield told


def _stalled(seen: dict[Key, Seen]) -> GaugeMetricFamily:
    told = GaugeMetricFamily(
        "tunesmith_stalled",
        "1 for each object that waits until somebody does something; its condition Stalled says "
        "what.",
        labels=("kind", "namespace", "name", "reason"),
    )
    for key, each in seen.items():
        if each.facts.stalled:
            told.add_metric((key.kind, key.namespace, key.name, each.facts.stalled), 1)
    return told


def _under_way(seen: dict[Key, Seen]) -> GaugeMetricFamily:
    told = GaugeMetricFamily(
        "tunesmith_state_seconds",
        "How long a FineTuneJob or EvalRun that is not finished was seen in its state; counted "
        "anew when the operator starts.",
        labels=("kind", "namespace", "name", "state"),
    )
    now = time.monotonic()
    for key, each in seen.items():
        if is_under_way(key.kind, each.facts.state):
            labels = key.kind, key.namespace, key.name, each.facts.state
            told.add_metric(labels, round(now - each.since, 3))
    return told


def _bad_ends(seen: dict[Key, Seen]) -> GaugeMetricFamily:
    told = GaugeMetricFamily(
        "tunesmith_failed_timestamp_seconds",
        "When a FineTuneJob was Rejected or Failed, or an EvalRun Failed (its verdict) or ended in "
        "Error; while the object exists.",
        labels=("kind", "namespace", "name", "state"),
    )
    for key, each in seen.items():
        if each.facts.failed_at is not None:
            labels = key.kind, key.namespace, key.name, each.facts.state
            told.add_metric(labels, each.facts.failed_at)
    return told


def _usage(seen: dict[Key, Seen]) -> GaugeMetricFamily:
    told = GaugeMetricFamily(
        "tunesmith_finetunejob_gpu_seconds",
        "GPU-seconds that the ended training attempts of a job used; while the job exists.",
        labels=("namespace", "name"),
    )
    for key, each in seen.items():
        if each.facts.gpu_seconds is not None:
            told.add_metric((key.namespace, key.name), each.facts.gpu_seconds)
    return told


def _adapters(seen: dict[Key, Seen]) -> Iterator[GaugeMetricFamily]:
    whose = ("namespace", "name")
    wanted = GaugeMetricFamily(
        "tunesmith_adapters_wanted", "Versions of adapters that a deployment serves.", labels=whose
    )
    ready = GaugeMetricFamily(
        "tunesmith_adapters_ready",
        "Versions of adapters that every replica which should was seen to answer with.",
        labels=whose,
    )
    lacking = GaugeMetricFamily(
        "tunesmith_adapter_replicas_missing",
        "Replicas that should answer with an adapter and do not; where there are any.",
        labels=(*whose, "adapter", "version"),
    )
    refused = GaugeMetricFamily(
        "tunesmith_adapters_not_served",
        "Selected adapters that a deployment does not serve, by reason.",
        labels=(*whose, "reason"),
    )
    for key, each in seen.items():
        if key.kind == Kind.ADAPTER_DEPLOYMENT:
            labels = key.namespace, key.name
            wanted.add_metric(labels, each.facts.adapters_wanted)
            ready.add_metric(labels, each.facts.adapters_ready)
            for one in each.facts.lacking:
                lacking.add_metric((*labels, one.name, one.version), one.replicas)
            for reason, number in each.facts.not_served:
                refused.add_metric((*labels, reason), number)
    yield from (wanted, ready, lacking, refused)
