"""spec.suspend: what runs stops and gives its GPU back, and goes on later."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import ConditionStatus
from tunesmith.kube.plan import Suspension

from tests.unit.operator import given
from tests.unit.operator.plans import AT_ONCE, condition, names, planned, seen, status_of

RUNNING = {"suspend": False}
STOPPED = {"suspend": True}


def job(suspend: bool = True, **status: Any) -> FineTuneJob:
    return given.finetunejob(status=given.prepared(**status), suspend=suspend, evaluation=AT_ONCE)


def test_a_suspended_job_begins_nothing() -> None:
    for status in ({}, given.prepared()):
        made = planned(seen(given.finetunejob(status=status, suspend=True, evaluation=AT_ONCE)))
        assert not made.create
        assert status_of(made).state is JobState.SUSPENDED


@pytest.mark.parametrize("stage", ["train", "prepare"])
def test_a_running_batch_job_is_suspended(stage: str) -> None:
    jobs = [given.batch_job(stage=stage, spec=RUNNING)]
    pods = [given.pod(stage=stage)]
    which = {"training": jobs} if stage == "train" else {"preparation": jobs}
    made = planned(seen(job(), pods=pods, **which))
    (change,) = made.suspend
    assert (change.job_name, change.suspend) == (f"triage-{stage}-1", True)
    assert status_of(made).state is JobState.SUSPENDED


def test_a_batch_job_that_is_suspended_already_is_left_alone() -> None:
    made = planned(seen(job(), [given.batch_job(spec=STOPPED)]))
    assert not made.suspend
    assert not made.create


NOTED = {"tunesmith.dev/gpu-seconds": "50"}
#: What lies on a Job that we suspended.
OURS = {**NOTED, "tunesmith.dev/stopped": "true"}
WENT_ON = {**NOTED, "tunesmith.dev/stopped": "false"}


def test_it_goes_on_as_the_same_attempt() -> None:
    stopped = given.batch_job(spec=STOPPED, annotations=OURS)
    made = planned(seen(job(suspend=False, attempt=1), [stopped]))
    assert made.suspend == [Suspension("triage-train-1", False, {"tunesmith.dev/stopped": "false"})]
    assert not made.create
    assert status_of(made).attempt == 1


def test_what_the_first_version_stopped_goes_on_too() -> None:
    stopped = given.batch_job(spec=STOPPED, annotations=NOTED)
    (change,) = planned(seen(job(suspend=False, attempt=1), [stopped])).suspend
    assert not change.suspend


@pytest.mark.parametrize("annotations", [{}, WENT_ON], ids=["never ours", "ours once"])
def test_what_somebody_else_suspended_is_theirs_to_resume(annotations: given.Raw) -> None:
    """Kueue may manage Jobs without a queue, too."""
    stopped = given.batch_job(spec=STOPPED, annotations=annotations)
    made = planned(seen(job(suspend=False, attempt=1), [stopped]))
    assert not made.suspend
    assert "waits until its Job triage-train-1 is resumed" in condition(made, "Succeeded").message


def test_a_batch_job_that_runs_as_wanted_is_not_touched() -> None:
    made = planned(seen(job(suspend=False), [given.batch_job(spec=RUNNING)], pods=[given.pod()]))
    assert not made.suspend


def test_a_finished_batch_job_is_not_touched() -> None:
    jobs = [given.batch_job(finished="Failed", spec=RUNNING)]
    made = planned(seen(job(), jobs, pods=[given.pod(1, "Failed", terminated={"exitCode": 1})]))
    assert not made.suspend
    assert not made.create


def test_for_tools_it_neither_moves_nor_is_anything_wrong() -> None:
    made = planned(seen(job()))
    statuses = {each.type: each.status for each in made.status.conditions}
    assert statuses["Reconciling"] is ConditionStatus.FALSE
    assert statuses["Stalled"] is ConditionStatus.FALSE
    assert statuses["Suspended"] is ConditionStatus.TRUE
    assert statuses["Ready"] is ConditionStatus.FALSE
    assert made.requeue_after is None


def test_an_eval_run_under_way_is_deleted_and_one_that_has_measured_is_kept() -> None:
    under_way, over = given.evalrun("under-way"), given.evalrun("over", status=_measured())
    made = planned(seen(job(), eval_runs=[under_way, over]))
    assert list(made.delete) == [("EvalRun", "under-way")]


def _measured() -> given.Raw:
    succeeded = {
        "type": "Succeeded",
        "status": "True",
        "reason": "Measured",
        "message": "",
        "lastTransitionTime": given.moment(5),
    }
    return {"conditions": [succeeded]}


def test_an_adapter_that_is_trained_keeps_its_result_and_waits_for_its_evaluation() -> None:
    jobs = [given.batch_job(finished="Complete")]
    made = planned(seen(job(), jobs, pods=[given.ended(given.trained(), 0)]))
    assert not made.create
    assert status_of(made).state is JobState.SUSPENDED
    assert status_of(made).artifact == given.artifact()
    assert condition(made, "Succeeded").status is ConditionStatus.TRUE


def test_a_job_that_is_done_is_not_suspended_any_more() -> None:
    jobs = [given.batch_job(finished="Complete")]
    run = given.evalrun(status={"verdict": "Passed", "adapterDigest": given.DIGEST})
    made = planned(seen(job(), jobs, pods=[given.ended(given.trained(), 0)], eval_runs=[run]))
    assert status_of(made).state is JobState.READY


def test_a_retry_that_was_due_begins_when_it_is_resumed() -> None:
    """Its changes are not told before."""
    jobs = [given.batch_job(finished="Complete")]
    gates = [{"suite": "mmlu", "minimumDifference": -3, "verdict": "Failed"}]
    (result,) = given.measured(suite="mmlu", difference=-5.0).to_json()["results"]
    status = {
        "verdict": "Failed",
        "adapterDigest": given.DIGEST,
        "results": [result],
        "gates": gates,
    }
    suites = [{"name": "mmlu", "benchmark": {"name": "mmlu"}}]
    run = given.evalrun(status=status, suites=suites)
    for suspend in (True, False):
        owner = given.finetunejob(
            status=given.prepared(attempt=1), suspend=suspend, evaluation={"onFailure": "Retry"}
        )
        pods = [given.ended(given.trained(), 0)]
        made = planned(seen(owner, jobs, pods=pods, eval_runs=[run]))
        assert bool(made.create) is not suspend
        assert bool(status_of(made).adjustments) is not suspend
        assert bool(status_of(made).artifact) is suspend
        assert (condition(made, "Succeeded").status is ConditionStatus.TRUE) is suspend


def test_the_gpu_seconds_so_far_are_noted_when_it_stops() -> None:
    container = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    spec = {**RUNNING, "template": {"spec": {"containers": [container]}}}
    batch_job = given.batch_job(spec=spec, annotations=NOTED)
    made = planned(seen(job(), [batch_job], pods=[given.pod()]))
    assert made.suspend[0].annotations == {**OURS, "tunesmith.dev/gpu-seconds": "650"}


def test_a_resumed_job_without_a_pod_yet_is_no_fault() -> None:
    batch_job = given.batch_job(spec=RUNNING)
    batch_job["status"]["conditions"] = [
        {"type": "Suspended", "status": "True", "lastTransitionTime": given.moment(500)}
    ]
    made = planned(seen(job(suspend=False, attempt=1), [batch_job]))
    assert condition(made, "Stalled").status is ConditionStatus.FALSE
    assert names(made) == []
