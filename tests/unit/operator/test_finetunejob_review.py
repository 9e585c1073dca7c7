"""A person approves exactly this data before a GPU is used."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import ConditionStatus
from tunesmith.kube.plan import Plan

from tests.unit.operator import given
from tests.unit.operator.plans import AT_ONCE, condition, names, planned, seen, status_of

DATA, BY = "tunesmith.dev/approved-data", "tunesmith.dev/approved-by"
OTHER = "sha256:" + "c" * 64


def reviewed(
    annotations: given.Raw | None = None,
    status: given.Raw | None = None,
    required: bool = True,
    jobs: list[given.Raw] | None = None,
    pods: list[given.Raw] | None = None,
) -> Plan:
    dataset = {"uri": "pvc://data/tickets.jsonl", "review": {"required": required}}
    job = given.finetunejob(
        status=status or given.prepared(),
        annotations=annotations,
        dataset=dataset,
        evaluation=AT_ONCE,
    )
    return planned(seen(job, jobs or [], pods=pods or []))


def approval(digest: str = given.DIGEST, by: str = "ada") -> given.Raw:
    return {DATA: digest, BY: by}


def test_without_an_approval_no_gpu_is_asked_for() -> None:
    made = reviewed()
    assert not made.create
    assert status_of(made).state is JobState.AWAITING_REVIEW
    told = condition(made, "Reviewed")
    assert (told.status, told.reason) == (ConditionStatus.FALSE, "NotApproved")


def test_the_message_has_the_page_and_the_command_that_approves() -> None:
    message = condition(reviewed(), "Succeeded").message
    assert f"Look at {given.PREPARED_URI}/review.html" in message
    assert f"finetunejob triage {DATA}={given.DIGEST} {BY}=YOUR-USER-NAME" in message


def test_waiting_for_a_person_is_no_fault() -> None:
    made = reviewed()
    assert condition(made, "Stalled").status is ConditionStatus.FALSE
    assert condition(made, "Reconciling").status is ConditionStatus.TRUE


def test_the_approval_of_this_very_data_lets_training_begin() -> None:
    made = reviewed(approval())
    assert names(made)[-1] == ("Job", "triage-train-1")
    assert condition(made, "Reviewed").message == f"ada approved the data {given.DIGEST}."


def test_status_says_who_approved_what_and_when() -> None:
    review = status_of(reviewed(approval())).review
    assert review is not None
    assert (review.approved_by, review.approved_digest) == ("ada", given.DIGEST)
    assert review.approved_at == given.moment(0)


def test_the_moment_of_an_approval_stays() -> None:
    first = status_of(reviewed(approval())).to_json()
    first["review"]["approvedAt"] = given.moment(500)
    later = status_of(reviewed(approval(), status=first)).review
    assert later is not None
    assert later.approved_at == given.moment(500)
    other = status_of(reviewed(approval(by="bob"), status=first)).review
    assert other is not None
    assert (other.approved_by, other.approved_at) == ("bob", given.moment(0))


def test_an_approval_of_other_data_counts_for_nothing_and_is_told() -> None:
    made = reviewed(approval(OTHER))
    assert not made.create
    told = condition(made, "Reviewed")
    assert told.reason == "OtherDataApproved"
    assert f"Approved is {OTHER}, but the data is {given.DIGEST}." in told.message


def test_an_approval_needs_a_name() -> None:
    made = reviewed({DATA: given.DIGEST})
    assert not made.create
    assert condition(made, "Reviewed").reason == "NoName"


def test_before_the_data_is_ready_there_is_nothing_to_approve() -> None:
    made = reviewed(approval(), status={"attempt": 0})
    assert names(made)[-1] == ("Job", "triage-prepare-1")
    assert condition(made, "Reviewed").reason == "NotPrepared"


def test_an_approval_that_is_withdrawn_stops_no_attempt_but_the_next() -> None:
    running = reviewed(jobs=[given.batch_job()], pods=[given.pod()])
    assert status_of(running).state is JobState.PREPARING
    crash = given.pod(1, "Failed", terminated={"exitCode": 1})
    next_one = reviewed(jobs=[given.batch_job(finished="Failed")], pods=[crash])
    assert not next_one.create
    assert status_of(next_one).state is JobState.AWAITING_REVIEW


@pytest.mark.parametrize("annotations", [None, approval()])
def test_where_no_review_is_required_nobody_waits(annotations: Any) -> None:
    made = reviewed(annotations, required=False)
    assert names(made)[-1] == ("Job", "triage-train-1")
