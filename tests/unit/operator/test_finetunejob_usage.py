"""GPU-seconds of the attempts that have ended."""

from __future__ import annotations

from typing import Any

from tunesmith.api.job_status import GpuSeconds

from tests.unit.operator import given
from tests.unit.operator.plans import AT_ONCE, planned, seen, status_of


def batch_job(number: int = 1, gpus: int = 2, pods: int = 1, **more: Any) -> given.Raw:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container = {"resources": {"limits": limits}}
    spec = {"completions": pods, "template": {"spec": {"containers": [container]}}}
    return given.batch_job(number, spec=spec, **more)


def crash(number: int = 1, **more: Any) -> given.Raw:
    """It ran for 240 seconds."""
    return given.pod(number, "Failed", terminated={"exitCode": 1}, **more)


def used(
    jobs: list[given.Raw], pods: list[given.Raw], status: given.Raw | None = None
) -> GpuSeconds | None:
    job = given.finetunejob(status=given.prepared(**(status or {})), evaluation=AT_ONCE)
    return status_of(planned(seen(job, jobs, pods=pods))).usage


def test_before_an_attempt_has_ended_nothing_is_told() -> None:
    assert used([batch_job()], [given.pod()]) is None


def test_a_failed_attempt_is_counted_from_its_container() -> None:
    assert used([batch_job(finished="Failed")], [crash()]) == GpuSeconds(
        attempts=1, gpu_seconds=480
    )


def test_every_pod_of_a_group_is_counted() -> None:
    jobs = [batch_job(pods=2, finished="Failed")]
    assert used(jobs, [crash(index=0), crash(index=1)]) == GpuSeconds(attempts=1, gpu_seconds=960)


def test_what_it_had_used_before_a_suspension_is_counted_too() -> None:
    jobs = [batch_job(finished="Failed", annotations={"tunesmith.dev/gpu-seconds": "100"})]
    assert used(jobs, [crash()]) == GpuSeconds(attempts=1, gpu_seconds=580)


def test_without_its_pods_the_batch_jobs_own_times_count() -> None:
    job = batch_job(finished="Failed")
    job["status"]["startTime"] = given.moment(105)
    assert used([job], []) == GpuSeconds(attempts=1, gpu_seconds=200)


def test_no_attempt_is_counted_twice() -> None:
    jobs, pods = [batch_job(finished="Failed")], [crash()]
    counted = {"attempt": 1, "usage": {"attempts": 1, "gpuSeconds": 480}}
    assert used(jobs, pods, counted) == GpuSeconds(attempts=1, gpu_seconds=480)


def test_what_was_counted_stays_when_its_batch_job_is_gone() -> None:
    jobs = [batch_job(3, finished="Failed", counted=2)]
    counted = {"attempt": 2, "usage": {"attempts": 2, "gpuSeconds": 1000}}
    assert used(jobs, [crash(3)], counted) == GpuSeconds(attempts=3, gpu_seconds=1480)


def test_a_wiped_status_counts_the_attempts_that_are_there() -> None:
    jobs = [batch_job(finished="Failed"), batch_job(2, finished="Failed", counted=1)]
    assert used(jobs, [crash(), crash(2)]) == GpuSeconds(attempts=2, gpu_seconds=960)


def test_an_attempt_that_a_suspension_takes_out_of_its_queue_is_counted() -> None:
    job = batch_job(labels={"kueue.x-k8s.io/queue-name": "team"})
    owner = given.finetunejob(status=given.prepared(attempt=1), suspend=True)
    made = planned(seen(owner, [job], pods=[given.pod()]))
    assert status_of(made).usage == GpuSeconds(attempts=1, gpu_seconds=600)


def test_training_on_the_cpu_uses_none() -> None:
    jobs = [batch_job(gpus=0, finished="Failed")]
    assert used(jobs, [crash()]) == GpuSeconds(attempts=1, gpu_seconds=0)
