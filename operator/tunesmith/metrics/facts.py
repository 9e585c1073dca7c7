"""What is told of one object of ours, taken from its status. Pure.

Read as plain JSON: thousands are read in one go, and one that a hand has spoilt stops nobody.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api import evalrun, job_status
from tunesmith.api.evalrun import EvalState
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import Kind
from tunesmith.kube.conditions import raw_condition

Object = dict[str, Any]

#: The state of what nobody has looked at yet, and of what cannot be read.
NEW, UNREADABLE = "New", "Unreadable"
FINISHED: dict[str, frozenset[str]] = {
    Kind.FINE_TUNE_JOB: frozenset(job_status.FINISHED),
    Kind.EVAL_RUN: frozenset(evalrun.FINISHED),
}
#: Finished states that somebody will want to hear of, and the condition that says since when.
BAD: dict[str, set[str]] = {
    Kind.FINE_TUNE_JOB: {JobState.REJECTED, JobState.FAILED},
    Kind.EVAL_RUN: {EvalState.FAILED, EvalState.ERROR},
}
SETTLED_BY: dict[str, str] = {Kind.FINE_TUNE_JOB: "Finished", Kind.EVAL_RUN: "Succeeded"}


@dataclass(frozen=True, slots=True)
class Lacking:
    """An adapter that some replicas should answer with and do not."""

    name: str
    version: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Facts:
    """One object, as far as metrics tell of it."""

    state: str
    #: The reason of the condition Stalled, while it holds and the object is not finished.
    stalled: str | None = None
    #: When it came to a bad end, in seconds since 1970.
    failed_at: float | None = None
    gpu_seconds: int | None = None
    adapters_ready: int = 0
    adapters_wanted: int = 0
    lacking: tuple[Lacking, ...] = ()
    #: Selected adapters that are not served, by reason.
    not_served: tuple[tuple[str, int], ...] = ()


def facts(kind: str, raw: Object) -> Facts:
    """What there is to tell about an object."""
    try:
        return _facts(kind, raw)
    except (AttributeError, LookupError, TypeError, ValueError):
        return Facts(UNREADABLE)


def is_under_way(kind: str, state: str) -> bool:
    """Whether this state has an end; that of a deployment has none."""
    return kind in FINISHED and state not in FINISHED[kind]


def _facts(kind: str, raw: Object) -> Facts:
    status = raw.get("status", {})
    state, stalled = str(status.get("state", NEW)), raw_condition(raw, "Stalled")
    waits = stalled.get("status") == "True" and state not in FINISHED.get(kind, ())
    settled = raw_condition(raw, SETTLED_BY.get(kind, ""))
    is_bad = state in BAD.get(kind, ())
    adapters = [_adapter(each) for each in status.get("adapters", [])]
    missing = tuple(each for each in adapters if each.replicas > 0)
    reasons = Counter(str(each["reason"]) for each in status.get("notServed", []))
    return Facts(
        state=state,
        stalled=str(stalled["reason"]) if waits else None,
        failed_at=_seconds(settled["lastTransitionTime"]) if settled and is_bad else None,
        gpu_seconds=int(status["usage"]["gpuSeconds"]) if "usage" in status else None,
        adapters_ready=len(adapters) - len(missing),
        adapters_wanted=len(adapters),
        lacking=missing,
        not_served=tuple(sorted(reasons.items())),
    )


def _adapter(served: Object) -> Lacking:
    wanted, ready = int(served.get("replicasWanted", 0)), int(served.get("replicasReady", 0))
    return Lacking(str(served["name"]), str(served.get("version", "")), wanted - ready)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
