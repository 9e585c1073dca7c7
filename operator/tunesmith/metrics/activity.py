"""What the operator does, counted while it does it."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from tunesmith import __version__

# A second series beside each counter, for a moment that nobody asks for.
disable_created_metrics()

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)


class PassOutcome(StrEnum):
    """How a pass ended."""

    DONE = "Done"
    REFUSED = "Refused"
    ERROR = "Error"


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

PASSES = Counter(
    "tunesmith_reconcile",
    "Reconcile passes. Refused: the API server said no; Error: an error of the operator's own.",
    ("kind", "outcome"),
    registry=REGISTRY,
)
PASS_SECONDS = Histogram(
    "tunesmith_reconcile_seconds",
    "Time that a pass took, its waiting for the API server and for pods included.",
    ("kind",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
PASS_ERRORS = Counter(
    "tunesmith_reconcile_errors",
    "Passes that came to nothing, by the status that the API server answered with (Http403), "
    "NoAnswer, or the class of the exception.",
    ("kind", "reason"),
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "tunesmith_queue_seconds",
    "Time that an object waited for its pass.",
    ("lane",),
    buckets=(0.001, *_SECONDS, 300.0),
    registry=REGISTRY,
)
REQUESTS = Counter(
    "tunesmith_api_requests",
    "Requests to the API server, those of the watches included. The code is Error if none came.",
    ("verb", "resource", "code"),
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "tunesmith_api_request_seconds",
    "Time until the API server began to answer.",
    ("verb",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
VERDICTS = Counter(
    "tunesmith_verdicts",
    "Verdicts that fell while this operator ran.",
    ("namespace", "verdict"),
    registry=REGISTRY,
)
GPU_SECONDS = Counter(
    "tunesmith_gpu_seconds",
    "GPU-seconds of training attempts that ended while this operator ran.",
    ("namespace",),
    registry=REGISTRY,
)
Gauge(
    "tunesmith_build_info", "The version that runs; always 1.", ("version",), registry=REGISTRY
).labels(__version__).set(1)
