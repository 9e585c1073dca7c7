"""How the operator itself stands: whether it leads, and what waits for it."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily

from tunesmith.kube.lease import Lease
from tunesmith.kube.workqueue import Lane, WorkQueue


def operation(queue: WorkQueue, lease: Lease) -> list[GaugeMetricFamily]:
    """As it is now."""
    depth = queue.depth()
    waiting = GaugeMetricFamily(
        "tunesmith_queue_depth", "Objects that wait for their pass.", labels=("lane",)
    )
    for lane in Lane:
        waiting.add_metric((lane.name.lower(),), depth[lane])
    return [
        waiting,
        GaugeMetricFamily(
            "tunesmith_leader",
            "1 in the replica that holds the lease and acts, 0 in one that stands by.",
            value=int(lease.held),
        ),
        GaugeMetricFamily(
            "tunesmith_reconcile_failing",
            "Objects whose last pass came to nothing; it is tried again.",
            value=queue.failing(),
        ),
    ]
