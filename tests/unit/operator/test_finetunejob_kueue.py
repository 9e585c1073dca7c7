"""A FineTuneJob with a queue: Kueue says when its Jobs run, and we touch nothing."""

from __future__ import annotations

from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState

from tests.unit.operator import given
from tests.unit.operator.plans import (
    AT_ONCE,
    condition,
    created_job,
    names,
    planned,
    seen,
    status_of,
)

QUEUE = {"kueue.x-k8s.io/queue-name": "team-queue"}
PRIORITY = {"kueue.x-k8s.io/priority-class": "high"}
STOPPED = {"suspend": True}


def job(suspend: bool = False, labels: given.Raw = QUEUE, **status: Any) -> FineTuneJob:
    return given.finetunejob(
        status=given.prepared(**status), labels=labels, suspend=suspend, evaluation=AT_ONCE
    )


def queued(spec: given.Raw, number: int = 1) -> given.Raw:
    return given.batch_job(number, spec=spec, labels=QUEUE)


def test_the_training_job_carries_the_queue_and_is_made_suspended() -> None:
    made = created_job(planned(seen(job(labels={**QUEUE, **PRIORITY, "team": "support"}))))
    labels = made["metadata"]["labels"]
    assert {key: labels.get(key) for key in (*QUEUE, *PRIORITY)} == {**QUEUE, **PRIORITY}
    assert "team" not in labels
    assert made["spec"]["suspend"] is True


def test_without_a_queue_a_job_is_not_made_suspended() -> None:
    made = created_job(planned(seen(job(labels=PRIORITY))))
    assert "suspend" not in made["spec"]
    assert not set(PRIORITY) & set(made["metadata"]["labels"])


def test_the_preparation_asks_for_no_gpu_and_waits_in_no_queue() -> None:
    made = created_job(planned(seen(given.finetunejob(labels=QUEUE))))
    assert not set(QUEUE) & set(made["metadata"]["labels"])
    assert "suspend" not in made["spec"]


def test_a_job_that_waits_for_its_turn_is_queued_and_left_alone() -> None:
    made = planned(seen(job(attempt=1), [queued(STOPPED)]))
    assert status_of(made).state is JobState.QUEUED
    assert "waits in the queue team-queue" in condition(made, "Succeeded").message
    assert not made.suspend
    assert not made.create


def test_however_long_it_waits_that_is_no_fault() -> None:
    waiting = queued(STOPPED)
    waiting["metadata"]["creationTimestamp"] = given.moment(86400)
    assert condition(planned(seen(job(attempt=1), [waiting])), "Stalled").status == "False"


def test_an_admitted_job_runs_as_any_other() -> None:
    made = planned(seen(job(attempt=1), [queued({"suspend": False})], pods=[given.pod()]))
    assert status_of(made).state is JobState.PREPARING
    assert not made.suspend


def test_a_suspended_job_leaves_the_queue_as_kueue_would_start_it_again() -> None:
    jobs = [queued({"suspend": False})]
    made = planned(seen(job(suspend=True, attempt=1), jobs, pods=[given.pod()]))
    assert not made.suspend
    assert list(made.delete) == [("Job", "triage-train-1")]
    assert status_of(made).state is JobState.SUSPENDED


def test_it_queues_anew_when_it_is_resumed_and_no_failure_is_counted() -> None:
    made = planned(seen(job(attempt=1, countedFailures=0)))
    assert names(made)[-1] == ("Job", "triage-train-2")
    annotations = created_job(made)["metadata"]["annotations"]
    assert annotations["tunesmith.dev/counted-failures"] == "0"
