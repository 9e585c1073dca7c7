"""What was asked of the API server, by whom and when: the development cluster's audit log.

Its times have microseconds, an object's creationTimestamp only seconds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

OPERATOR = "system:serviceaccount:tunesmith-system:tunesmith-operator"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
READS = {"get", "list", "watch"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as far as it tells who did what."""

    user: str
    agent: str
    verb: str
    #: For example jobs, or finetunejobs/status.
    resource: str
    namespace: str
    name: str
    code: int
    received: float
    answered: float

    @property
    def writes(self) -> bool:
        return self.verb not in READS

    @property
    def by_kubectl(self) -> bool:
        return self.agent.startswith("kubectl")

    @property
    def what(self) -> str:
        return f"{self.verb} {self.resource}"


@dataclass(frozen=True)
class AuditLog:
    """The file, which grows while the cluster runs and is not rotated in a benchmark's time."""

    path: Path

    def position(self) -> int:
        """Where the next request will be written."""
        return self.path.stat().st_size

    def requests(self, start: int, *markers: str) -> list[Request]:
        """Those from a position on whose line contains one of the markers; all, without any."""
        wanted = [each.encode() for each in markers]
        found = []
        with self.path.open("rb") as log:
            log.seek(start)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # still being written
                if wanted and not any(each in line for each in wanted):
                    continue
                if request := _request(json.loads(line)):
                    found.append(request)
        return found


def _request(event: dict[str, Any]) -> Request | None:
    # A watch counts when it begins, everything else when it is answered.
    begins = event["stage"] == "ResponseStarted"
    if begins != (event["verb"] == "watch"):
        return None
    target = event.get("objectRef", {})
    parts = (target.get("resource", event["requestURI"]), target.get("subresource"))
    return Request(
        user=event["user"]["username"],
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        resource="/".join(each for each in parts if each),
        namespace=target.get("namespace", ""),
        name=_name(event),
        code=int(event.get("responseStatus", {}).get("code", 0)),
        received=_seconds(event["requestReceivedTimestamp"]),
        answered=_seconds(event["stageTimestamp"]),
    )


def _name(event: dict[str, Any]) -> str:
    """Of a pod, whose name the API server makes up, that of the Job it belongs to."""
    name = event.get("objectRef", {}).get("name")
    if name:
        return str(name)
    metadata = event.get("requestObject", {}).get("metadata", {})
    owners = metadata.get("ownerReferences") or [{}]
    return str(owners[0].get("name", ""))


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)] if ranked else math.nan


def counts(requests: Sequence[Request]) -> Counter[str]:
    """How many of each verb and resource."""
    return Counter(each.what for each in requests)
