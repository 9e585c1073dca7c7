"""What the ended attempts of training have used, in GPU-seconds. Pure.

An attempt is counted once, in the order of their numbers: what status says stays, and only
attempts with a higher number than those in it are added. An attempt whose Job somebody deletes
while it runs is not seen to end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tunesmith.api.job_status import GpuSeconds
from tunesmith.finetunejob.decision import Observed
from tunesmith.kube import pods
from tunesmith.kube.attempts import attempt_number
from tunesmith.kube.conditions import timestamp
from tunesmith.kube.labels import GPU_SECONDS, noted_number
from tunesmith.kube.observed_attempt import is_finished, job_end, pods_of, since
from tunesmith.kube.pod_spec import GPU

Object = dict[str, Any]


def usage(observed: Observed, stopped: list[Object], now: datetime) -> GpuSeconds | None:
    """With what the attempts used that have ended since; ``stopped`` are Jobs that end now."""
    before = observed.job.status.usage or GpuSeconds(attempts=0, gpu_seconds=0)
    attempts, seconds = before.attempts, before.gpu_seconds
    for job in sorted(observed.jobs, key=attempt_number):
        if attempt_number(job) > attempts and (is_finished(job) or job in stopped):
            attempts = attempt_number(job)
            seconds += so_far(job, observed.pods, now)
    return GpuSeconds(attempts=attempts, gpu_seconds=seconds) if attempts else None


def so_far(job: Object, all_pods: list[Object], now: datetime) -> int:
    """What one attempt has used: its pods, and what it had used when it was suspended.

    A Job whose pods are all gone is taken to have used its GPUs from its begin to its end.
    """
    before = noted_number(job, GPU_SECONDS)
    times = [time for pod in pods_of(job, all_pods) if (time := _seconds(pod, now)) is not None]
    if not times and is_finished(job):
        times = [_between(since(job), job_end(job))] * _pods_wanted(job)
    return before + round(_gpus(job) * sum(times))


def _seconds(pod: Object, now: datetime) -> float | None:
    if end := pods.ending(pod):
        return _between(end.started_at, end.finished_at)
    started = pods.running_since(pod)
    return _between(started, timestamp(now)) if started else None


def _between(start: str, end: str) -> float:
    difference = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return max(0.0, difference.total_seconds())


def _pods_wanted(job: Object) -> int:
    return int(job.get("spec", {}).get("completions") or 1)


def _gpus(job: Object) -> int:
    """Of one pod."""
    template = job.get("spec", {}).get("template", {}).get("spec", {})
    containers = template.get("containers", [])
    return sum(int(each.get("resources", {}).get("limits", {}).get(GPU, 0)) for each in containers)
