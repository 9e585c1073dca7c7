"""ttlSecondsAfterFinished: a job that is done goes after a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tunesmith.api.objects import ConditionStatus
from tunesmith.kube.plan import Plan

from tests.unit.operator import given
from tests.unit.operator.plans import condition, planned, seen

TTL = 100


def finished_since(seconds: float) -> given.Raw:
    told = {
        "type": "Finished",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": given.moment(seconds),
    }
    return {"conditions": [told]}


def judged(verdict: str, status: given.Raw | None = None, **spec: Any) -> Plan:
    run = given.evalrun(status={"verdict": verdict, "adapterDigest": given.DIGEST})
    jobs, pods = [given.batch_job(finished="Complete")], [given.ended(given.trained(), 0)]
    job = given.finetunejob(status=given.prepared(**(status or {})), **spec)
    return planned(seen(job, jobs, pods=pods, eval_runs=[run]))


@pytest.mark.parametrize("verdict", ["Passed", "Failed"])
def test_a_job_that_was_done_so_long_ago_is_deleted(verdict: str) -> None:
    made = judged(verdict, finished_since(TTL), ttlSecondsAfterFinished=TTL)
    assert made.expired


def test_until_then_it_is_looked_at_again_when_its_time_comes() -> None:
    made = judged("Passed", finished_since(40), ttlSecondsAfterFinished=TTL)
    assert not made.expired
    assert made.requeue_after == timedelta(seconds=60)


def test_a_job_that_has_just_been_done_has_all_its_time() -> None:
    made = judged("Passed", ttlSecondsAfterFinished=TTL)
    assert condition(made, "Finished").last_transition_time == given.moment(0)
    assert made.requeue_after == timedelta(seconds=TTL)


def test_without_a_time_to_live_it_stays() -> None:
    made = judged("Passed", finished_since(10_000_000))
    assert not made.expired
    assert made.requeue_after is None


def test_a_job_that_is_not_done_has_no_end() -> None:
    made = planned(seen(given.finetunejob(ttlSecondsAfterFinished=0)))
    assert not made.expired
    assert condition(made, "Finished").status is ConditionStatus.FALSE


def test_a_job_that_failed_is_done() -> None:
    jobs = [given.batch_job(finished="Failed", counted=9)]
    crash = given.pod(1, "Failed", terminated={"exitCode": 1})
    job = given.finetunejob(
        status=given.prepared(**finished_since(TTL)), ttlSecondsAfterFinished=TTL
    )
    assert planned(seen(job, jobs, pods=[crash])).expired
