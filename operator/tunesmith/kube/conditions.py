"""Conditions with the semantics of metav1.Condition, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.objects import Condition, ConditionStatus

#: What the CRDs allow.
LONGEST_MESSAGE = 4096


@dataclass(frozen=True)
class Finding:
    """What a planner found about one condition; the time stamp is added when it is written."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


def holds(type_: str, reason: str, message: str) -> Finding:
    return Finding(type_, ConditionStatus.TRUE, reason, message)


def fails(type_: str, reason: str, message: str) -> Finding:
    return Finding(type_, ConditionStatus.FALSE, reason, message)


def unknown(type_: str, reason: str, message: str) -> Finding:
    return Finding(type_, ConditionStatus.UNKNOWN, reason, message)


def timestamp(moment: datetime) -> str:
    """A moment in UTC as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def updated(
    previous: Iterable[Condition], findings: Iterable[Finding], generation: int, now: datetime
) -> list[Condition]:
    """The new conditions: a transition time only moves when the status does."""
    before = {each.type: each for each in previous}
    return [_updated_one(before.get(each.type), each, generation, now) for each in findings]


def _updated_one(
    previous: Condition | None, finding: Finding, generation: int, now: datetime
) -> Condition:
    unchanged = previous is not None and previous.status == finding.status
    return Condition(
        type=finding.type,
        status=finding.status,
        reason=finding.reason,
        message=finding.message[:LONGEST_MESSAGE],
        observed_generation=generation,
        last_transition_time=(
            previous.last_transition_time if previous and unchanged else timestamp(now)
        ),
    )


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    return next((each for each in conditions if each.type == type_), None)


def raw_condition(raw: dict[str, Any], type_: str) -> dict[str, Any]:
    """The condition of an object as the API server returned it; empty where there is none."""
    conditions = raw.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == type_), {})


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    found = find(conditions, type_)
    return found is not None and found.status is ConditionStatus.TRUE
