"""Kubernetes Events: what a person would want to be told, said once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.objects import Condition, ConditionStatus
from tunesmith.api.reasons import ConditionReason
from tunesmith.kube.conditions import find, timestamp

COMPONENT = "tunesmith"
#: Conditions that are told when they begin to hold, and when they stop to. A condition that is
#: False from the beginning ("not trained yet") is no news.
TOLD_WHEN_TRUE = {
    "Succeeded", "Reviewed", "Ready", "Passed", "Suspended", "Stalled", "Warning",
}  # fmt: skip
TOLD_WHEN_FALSE = {"Succeeded", "Passed", "Preflight"}
#: Conditions that are bad when they hold.
TROUBLES = {"Stalled", "Warning"}
#: About what was asked for, true as long as the object is there: the condition is enough, and a
#: thousand jobs need not be a thousand Events more.
NO_NEWS = {ConditionReason.OUTSIDE_PROVEN_RANGE, ConditionReason.FEW_ITEMS}


@dataclass(frozen=True)
class Announcement:
    """An Event before it has an object and a time."""

    warning: bool
    reason: str
    message: str


def announcements(before: Iterable[Condition], after: Iterable[Condition]) -> list[Announcement]:
    """One announcement for each condition that got another status or reason."""
    previous = list(before)
    told = []
    for condition in after:
        old = find(previous, condition.type)
        if old and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        if condition.reason in NO_NEWS:
            continue
        match condition.status:
            case ConditionStatus.TRUE if condition.type in TOLD_WHEN_TRUE:
                warning = condition.type in TROUBLES
            case ConditionStatus.FALSE if old and condition.type in TOLD_WHEN_FALSE:
                warning = True
            case _:
                continue
        told.append(Announcement(warning, condition.reason, condition.message))
    return list(dict.fromkeys(told))


def event_object(owner: dict[str, Any], told: Announcement, now: datetime) -> dict[str, Any]:
    """The Event. Its name follows from what it says about which version of the object, so that a
    pass that is repeated after a crash does not say it twice."""
    metadata = owner["metadata"]
    said = f"{metadata['uid']}/{metadata['resourceVersion']}/{told.reason}/{told.message}"
    moment = timestamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if told.warning else "Normal",
        "reason": told.reason,
        "message": told.message[:1024],
        "source": {"component": COMPONENT},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
