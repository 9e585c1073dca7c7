"""What follows on an attempt of training that ran out of memory."""

from __future__ import annotations

import json

from tunesmith.api.job_status import JobState
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import ExitCode, Reason
from tunesmith.kube.plan import Plan

from tests.unit.operator import given
from tests.unit.operator.plans import (
    AT_ONCE,
    condition,
    created_job,
    created_plan,
    names,
    planned,
    seen,
    status_of,
)

ANNOTATION = "tunesmith.dev/memory-plan"
WORD = given.failed(FailureClass.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY, "CUDA out of memory.")
HALF = given.memory_plan(micro_batch_size=2, gradient_accumulation=4)


def ran_out(number: int = 1, status: given.Raw | None = None, ago: int = 60, **plan: int) -> Plan:
    """An attempt with this plan ran out of memory so many seconds ago."""
    written = json.dumps(given.memory_plan(**plan).to_json())
    job = given.batch_job(
        number, finished="Failed", counted=number - 1, annotations={ANNOTATION: written}
    )
    pod = given.ended(WORD, ExitCode.OUT_OF_MEMORY, number)
    (container,) = pod["status"]["containerStatuses"]
    container["state"]["terminated"]["finishedAt"] = given.moment(ago)
    owner = given.finetunejob(status=status or given.prepared(), evaluation=AT_ONCE)
    return planned(seen(owner, [job], pods=[pod]))


def test_the_plan_is_written_on_the_job_that_trains_with_it() -> None:
    made = planned(seen(given.finetunejob(status=given.prepared(), evaluation=AT_ONCE)))
    written = created_job(made)["metadata"]["annotations"][ANNOTATION]
    assert json.loads(written) == given.memory_plan().to_json()


def test_the_next_attempt_has_half_the_micro_batch_and_the_same_batch() -> None:
    made = ran_out()
    assert names(made)[-1] == ("Job", "triage-train-2")
    assert created_plan(made)["memory"]["microBatchSize"] == 2
    assert created_plan(made)["memory"]["gradientAccumulation"] == 4
    plan = status_of(made).plan
    assert plan is not None
    assert (plan.micro_batch_size, plan.gradient_accumulation) == (2, 4)


def test_it_is_counted_as_an_attempt() -> None:
    annotations = created_job(ran_out())["metadata"]["annotations"]
    assert annotations["tunesmith.dev/counted-failures"] == "1"


def test_the_change_is_said_before_and_when_it_is_made() -> None:
    sentence = "Attempt 2 passes 2 sequences at a time, not 4, and accumulates 4 passes"
    waiting = ran_out(ago=1)
    assert status_of(waiting).state is JobState.RETRYING
    assert status_of(waiting).plan == given.memory_plan()
    assert sentence in condition(waiting, "Succeeded").message
    assert "CUDA out of memory." in condition(waiting, "Succeeded").message
    assert sentence in condition(ran_out(), "Succeeded").message


def test_a_second_time_it_is_halved_again() -> None:
    made = ran_out(2, micro_batch_size=2, gradient_accumulation=4)
    assert created_plan(made)["memory"]["microBatchSize"] == 1
    assert created_plan(made)["memory"]["gradientAccumulation"] == 8


def test_a_single_sequence_that_is_too_much_is_computed_with_more_checkpointing() -> None:
    made = ran_out(3, micro_batch_size=1, gradient_accumulation=8)
    assert created_plan(made)["memory"]["activationCheckpointing"] == "Partial"
    assert "activation checkpointing Partial, not Off" in condition(made, "Succeeded").message


def test_what_follows_is_read_from_the_failed_job_and_from_no_memory_of_ours() -> None:
    assert created_plan(ran_out(status=given.prepared(plan=HALF.to_json()))) == created_plan(
        ran_out()
    )


def test_a_plan_that_a_hand_has_spoilt_is_the_one_that_status_keeps() -> None:
    for written in ("not JSON", '{"microBatchSize": "many"}', "[]"):
        job = given.batch_job(1, annotations={ANNOTATION: written})
        owner = given.finetunejob(status={**given.prepared(), "attempt": 1}, evaluation=AT_ONCE)
        assert status_of(planned(seen(owner, [job]))).plan == given.memory_plan()


def test_a_failure_of_another_kind_keeps_the_smaller_plan() -> None:
    job = given.batch_job(
        2, finished="Failed", annotations={ANNOTATION: json.dumps(HALF.to_json())}
    )
    crash = given.pod(2, "Failed", terminated={"exitCode": 1})
    owner = given.finetunejob(status=given.prepared(attempt=2), evaluation=AT_ONCE)
    made = planned(seen(owner, [job], pods=[crash]))
    assert created_plan(made)["memory"] == HALF.to_json()


def test_a_job_deleted_by_hand_after_it_ran_out_of_memory_is_followed_by_the_smaller_plan() -> None:
    failure = {
        "attempt": 1,
        "class": "OutOfMemory",
        "reason": "OutOfMemory",
        "message": "",
        "finishedAt": given.moment(60),
    }
    status = given.prepared(attempt=1, failure=failure)
    made = planned(seen(given.finetunejob(status=status, evaluation=AT_ONCE)))
    assert created_plan(made)["memory"]["microBatchSize"] == 2


def test_a_job_deleted_by_hand_does_not_bring_back_the_first_plan() -> None:
    """The Job that prepared is still there, with the plan that was too large."""
    status = given.prepared(attempt=2, plan=HALF.to_json())
    preparation = [given.batch_job(stage="prepare", finished="Complete")]
    pods = [given.ended(given.outcome(), 0, stage="prepare")]
    job = given.finetunejob(status=status, evaluation=AT_ONCE)
    made = planned(seen(job, preparation=preparation, pods=pods))
    assert names(made)[-1] == ("Job", "triage-train-3")
    assert created_plan(made)["memory"]["microBatchSize"] == 2


def test_at_the_limit_nothing_follows_and_nothing_is_promised() -> None:
    written = {ANNOTATION: json.dumps(given.memory_plan().to_json())}
    job = given.batch_job(4, finished="Failed", counted=3, annotations=written)
    owner = given.finetunejob(status=given.prepared(attempt=4))
    made = planned(seen(owner, [job], pods=[given.ended(WORD, ExitCode.OUT_OF_MEMORY, 4)]))
    assert status_of(made).state is JobState.FAILED
    assert "sequences at a time" not in condition(made, "Succeeded").message
