"""Training again with one change after a failed verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import FineTuneJobStatus, JobState
from tunesmith.api.objects import Condition, ConditionStatus, FailureClass
from tunesmith.api.trainer_contract import ExitCode, Reason
from tunesmith.api.verdict import Verdict
from tunesmith.finetunejob.decision import Observed
from tunesmith.finetunejob.plan import plan
from tunesmith.kube.conditions import find
from tunesmith.kube.observed_attempt import latest_attempt
from tunesmith.kube.plan import Plan

from tests.unit.operator import given

ANNOTATION = "tunesmith.dev/adjustments"
OTHER = "sha256:" + "c" * 64
LOWERED = {
    "field": "training.learningRate",
    "from": 2e-4,
    "to": 1e-4,
    "because": "mmlu fell by 5.0 points",
    "evalRun": "triage-aaaaaaaa",
    "adapterDigest": given.DIGEST,
}


def job(status: given.Raw | None = None, **evaluation: Any) -> FineTuneJob:
    remembered = given.prepared(**(status or {}))
    return given.finetunejob(status=remembered, evaluation={"onFailure": "Retry", **evaluation})


def forgot(digest: str = given.DIGEST, verdict: str = "Failed") -> EvalRun:
    """An EvalRun whose benchmark decided."""
    (result,) = given.measured(suite="mmlu", difference=-5.0).to_json()["results"]
    return given.evalrun(
        f"triage-{digest[7:15]}",
        status={
            "verdict": verdict,
            "adapterDigest": digest,
            "results": [result],
            "gates": [{"suite": "mmlu", "minimumDifference": -3, "verdict": verdict}],
        },
        suites=[{"name": "mmlu", "benchmark": {"name": "mmlu"}}],
        gates=[{"suite": "mmlu"}],
    )


def batch_job(number: int, *changes: given.Raw, **more: Any) -> given.Raw:
    made = given.batch_job(number, **more)
    if changes:
        made["metadata"]["annotations"][ANNOTATION] = json.dumps(changes)
    return made


def trained(number: int, digest: str = given.DIGEST) -> given.Raw:
    """A pod that has trained an adapter."""
    message = given.trained()
    assert message.training is not None
    artifact = message.training.artifact.model_copy(update={"digest": digest})
    outcome = message.training.model_copy(update={"artifact": artifact})
    return given.ended(message.model_copy(update={"training": outcome}), 0, number)


def seen(
    jobs: list[given.Raw],
    pods: list[given.Raw],
    *runs: EvalRun,
    status: given.Raw | None = None,
    **evaluation: Any,
) -> Observed:
    seen_job = job(status, **evaluation)
    attempt = latest_attempt(jobs, pods, seen_job.status)
    return Observed(seen_job, attempt, jobs, eval_runs=list(runs))


def planned(observed: Observed) -> Plan:
    return plan(observed, given.SETTINGS, given.NOW)


def status_of(made: Plan) -> FineTuneJobStatus:
    assert isinstance(made.status, FineTuneJobStatus)
    return made.status


def ready(made: Plan) -> Condition:
    found = find(made.status.conditions, "Ready")
    assert found is not None
    return found


def started(made: Plan) -> given.Raw:
    """The batch Job that was made, and nothing but it."""
    (created,) = made.create
    assert created["metadata"]["labels"]["tunesmith.dev/stage"] == "train"
    return dict(created)


def training_of(made: Plan) -> given.Raw:
    return dict(given.plan_of(started(made))["training"])


FIRST = [given.batch_job(finished="Complete")]
FIRST_POD = [given.ended(given.trained(), 0)]


def failed_once(**evaluation: Any) -> Plan:
    return planned(seen(FIRST, FIRST_POD, forgot(), **evaluation))


def test_a_failed_verdict_starts_a_new_attempt_with_exactly_one_change() -> None:
    made = failed_once()
    assert started(made)["metadata"]["name"] == "triage-train-2"
    assert training_of(made)["learningRate"] == 1e-4
    assert training_of(made)["epochs"] == 3
    assert json.loads(started(made)["metadata"]["annotations"][ANNOTATION]) == [LOWERED]


def test_nothing_is_trained_again_on_data_that_is_not_approved_any_more() -> None:
    seen_job = given.finetunejob(
        status=given.prepared(),
        dataset={"uri": "pvc://data/tickets.jsonl", "review": {"required": True}},
        evaluation={"onFailure": "Retry"},
    )
    attempt = latest_attempt(FIRST, FIRST_POD, seen_job.status)
    made = planned(Observed(seen_job, attempt, FIRST, eval_runs=[forgot()]))
    assert not made.create
    status = status_of(made)
    assert status.state is JobState.AWAITING_REVIEW
    assert "waits for somebody's approval" in ready(made).message
    assert status.artifact is not None
    assert status.evaluation is not None
    assert status.evaluation.verdict is Verdict.FAILED
    succeeded = find(status.conditions, "Succeeded")
    assert succeeded is not None
    assert succeeded.status is ConditionStatus.TRUE


def test_status_shows_the_change_and_forgets_the_failed_adapter() -> None:
    status = status_of(failed_once())
    assert status.attempt == 2
    assert [each.to_json() for each in status.adjustments] == [LOWERED]
    assert (status.artifact, status.evaluation, status.completion_time) == (None, None, None)
    assert "training.learningRate 0.0001, not 0.0002" in ready(failed_once()).message


def test_recommend_changes_nothing_and_says_what_to_change() -> None:
    made = failed_once(onFailure="Recommend")
    assert not made.create
    assert status_of(made).state is JobState.REJECTED
    assert "Set training.learningRate to 0.0001" in ready(made).message
    evaluation = status_of(made).evaluation
    assert evaluation is not None
    assert evaluation.recommendation is not None


@pytest.mark.parametrize("verdict", ["Passed", "Inconclusive"])
def test_only_a_failure_is_tried_again(verdict: str) -> None:
    assert not planned(seen(FIRST, FIRST_POD, forgot(verdict=verdict))).create


def test_a_repeated_pass_makes_the_same_attempt_again() -> None:
    assert failed_once() == failed_once()


def test_a_crash_before_status_was_written_loses_nothing() -> None:
    """The Job of the second attempt is there; status still tells of the first."""
    judged = planned(seen(FIRST, FIRST_POD, forgot(), onFailure="Recommend"))
    jobs = [*FIRST, batch_job(2, LOWERED)]
    made = planned(seen(jobs, [*FIRST_POD, given.pod(2)], forgot(), status=judged.status.to_json()))
    assert not made.create
    status = status_of(made)
    assert (status.attempt, status.artifact) == (2, None)
    assert [each.to_json() for each in status.adjustments] == [LOWERED]


def test_an_attempt_that_trained_before_status_told_of_it_is_judged_on_its_own() -> None:
    judged = planned(seen(FIRST, FIRST_POD, forgot(), onFailure="Recommend"))
    jobs = [*FIRST, batch_job(2, LOWERED, finished="Complete")]
    made = planned(
        seen(jobs, [*FIRST_POD, trained(2, OTHER)], forgot(), status=judged.status.to_json())
    )
    assert status_of(made).attempt == 2
    assert [each["metadata"]["name"] for each in made.create] == ["triage-cccccccc"]


def test_an_older_batch_job_does_not_bring_back_its_adapter() -> None:
    """The Job of the second attempt was deleted after it had trained."""
    jobs = [*FIRST, batch_job(2, LOWERED, finished="Complete")]
    before = planned(seen(jobs, [*FIRST_POD, trained(2, OTHER)], forgot()))
    made = planned(seen(FIRST, FIRST_POD, forgot(), status=before.status.to_json()))
    assert made == before


def test_the_changes_are_known_without_any_status() -> None:
    jobs = [*FIRST, batch_job(2, LOWERED)]
    made = planned(seen(jobs, [*FIRST_POD, given.pod(2)]))
    assert [each.to_json() for each in status_of(made).adjustments] == [LOWERED]


def test_an_attempt_after_a_failure_of_infrastructure_keeps_the_changes() -> None:
    lost = given.ended(
        given.failed(FailureClass.INTERNAL, Reason.INTERNAL, "It broke."), ExitCode.INTERNAL, 2
    )
    status = failed_once().status.to_json()
    made = planned(seen([*FIRST, batch_job(2, LOWERED, finished="Failed")], [lost], status=status))
    assert started(made)["metadata"]["name"] == "triage-train-3"
    assert json.loads(started(made)["metadata"]["annotations"][ANNOTATION]) == [LOWERED]
    assert started(made)["metadata"]["annotations"]["tunesmith.dev/counted-failures"] == "1"


def test_the_changes_outlive_their_batch_job() -> None:
    made = planned(seen([], [], status=failed_once().status.to_json()))
    assert json.loads(started(made)["metadata"]["annotations"][ANNOTATION]) == [LOWERED]


def test_a_retry_counts_no_failure() -> None:
    made = failed_once(maxRetries=1)
    assert status_of(made).counted_failures == 0


def second(digest: str = OTHER, change: given.Raw = LOWERED, **evaluation: Any) -> Plan:
    """The second attempt was judged, and failed."""
    jobs = [*FIRST, batch_job(2, change, finished="Complete")]
    runs = [forgot(), forgot(digest)]
    return planned(seen(jobs, [*FIRST_POD, trained(2, digest)], *runs, **evaluation))


def test_a_second_change_follows_on_the_first() -> None:
    made = second()
    changes = json.loads(started(made)["metadata"]["annotations"][ANNOTATION])
    assert [(each["from"], each["to"]) for each in changes] == [(2e-4, 1e-4), (1e-4, 5e-5)]
    assert changes[1]["evalRun"] == "triage-cccccccc"
    assert training_of(made)["learningRate"] == 5e-5


def test_there_are_no_more_retries_than_allowed() -> None:
    made = second(maxRetries=1)
    assert not made.create
    assert status_of(made).state is JobState.REJECTED
    assert "trained again once, as evaluation.maxRetries allows" in ready(made).message
    assert ready(made).status is ConditionStatus.FALSE


def test_the_very_same_adapter_is_not_tried_again() -> None:
    made = second(given.DIGEST)
    assert not made.create
    assert "the very same adapter" in ready(made).message


def test_a_change_that_leads_back_is_not_made() -> None:
    raised = {**LOWERED, "from": 2e-4, "to": 4e-4}
    made = second(change=raised)
    assert not made.create
    assert "leads back" in ready(made).message


def test_a_recommendation_about_the_data_is_for_people() -> None:
    run = given.evalrun(
        status={
            "verdict": "Failed",
            "adapterDigest": given.DIGEST,
            "results": given.measured(difference=-1.0).to_json()["results"],
            "gates": [{"suite": "held-out", "minimumDifference": 0, "verdict": "Failed"}],
        }
    )
    made = planned(seen(FIRST, FIRST_POD, run))
    assert not made.create
    assert "not trained again by itself" in ready(made).message


def test_a_verdict_that_outlives_its_eval_run_still_leads_to_the_retry() -> None:
    judged = planned(seen(FIRST, FIRST_POD, forgot(), onFailure="Recommend"))
    made = planned(seen([], [], status=judged.status.to_json()))
    assert started(made)["metadata"]["name"] == "triage-train-2"
    assert json.loads(started(made)["metadata"]["annotations"][ANNOTATION]) == [LOWERED]
