"""What may grow without a bound: looked at again and again, and the slope of it."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.kube.labels import MANAGED_BY, MANAGER

from examples.demo.kubectl import Kubectl, Object
from tests.bench.operator_process import OperatorProcess
from tests.bench.soak_churn import KINDS

#: What the operator makes, as kubectl lists it.
CHILD_KINDS = "jobs,pods,evalruns,configmaps,services,deployments,poddisruptionbudgets"


@dataclass(frozen=True)
class ProcessSample:
    """The operator's process at one moment."""

    hours: float
    resident: int
    open_files: int
    threads: int

    @classmethod
    def take(cls, operator: OperatorProcess, began: float) -> ProcessSample:
        hours = (time.monotonic() - began) / 3600
        return cls(hours, operator.resident, operator.open_files, operator.threads)


@dataclass(frozen=True)
class ObjectSample:
    """The largest of what lies in the API server at one moment."""

    hours: float
    objects: int
    #: Bytes of JSON, of one object.
    status: int
    annotations: int
    #: Of the operator, about one object.
    events: int
    config_maps: int
    config_map: int
    children: int

    @classmethod
    def take(cls, kubectl: Kubectl, began: float) -> ObjectSample:
        own = _list(kubectl, ",".join(KINDS))
        children = managed(kubectl)
        maps = [each for each in children if each["kind"] == "ConfigMap"]
        every = [*own, *children]
        events = Counter(
            each["involvedObject"]["uid"]
            for each in _list(kubectl, "events")
            if each.get("source", {}).get("component") == MANAGER
        )
        return cls(
            hours=(time.monotonic() - began) / 3600,
            objects=len(own),
            status=max((size(each.get("status")) for each in own), default=0),
            annotations=max(
                (size(each["metadata"].get("annotations")) for each in every), default=0
            ),
            events=max(events.values(), default=0),
            config_maps=len(maps),
            config_map=max((size(each.get("data")) for each in maps), default=0),
            children=len(children),
        )


def managed(kubectl: Kubectl) -> list[Object]:
    """What the operator has made in this namespace and is still there."""
    return _list(kubectl, CHILD_KINDS, "-l", f"{MANAGED_BY}={MANAGER}")


def _list(kubectl: Kubectl, kinds: str, *more: str) -> list[Object]:
    return list(json.loads(kubectl.run("get", kinds, "-o", "json", *more))["items"])


def size(value: object) -> int:
    return len(json.dumps(value)) if value else 0


@dataclass(frozen=True)
class Slope:
    """A straight line through samples, by least squares."""

    an_hour: float
    #: Standard error of that. Neighbouring samples are alike, so that it is rather larger.
    noise: float

    @classmethod
    def of(cls, hours: Sequence[float], values: Sequence[float]) -> Slope:
        line = statistics.linear_regression(hours, values)
        mean = statistics.fmean(hours)
        left = sum(
            (value - line.intercept - line.slope * hour) ** 2
            for hour, value in zip(hours, values, strict=True)
        )
        spread = sum((hour - mean) ** 2 for hour in hours)
        return cls(line.slope, math.sqrt(left / max(1, len(hours) - 2) / spread))
