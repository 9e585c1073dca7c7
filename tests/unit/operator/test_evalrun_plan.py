"""What happens next to an EvalRun, and how its verdict follows from what was measured."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tunesmith.api.evalrun import EvalRunStatus, EvalState, GateResult
from tunesmith.api.evaluation_suite import Gate, OnInconclusive, Suite, all_gates
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import ArtifactKind
from tunesmith.api.objects import ConditionStatus
from tunesmith.api.trainer_contract import TerminationMessage
from tunesmith.api.verdict import ConfidenceInterval, Verdict, judge
from tunesmith.evalrun.plan import Observed, plan
from tunesmith.evalrun.verdict import judge_all, worst
from tunesmith.kube.conditions import find
from tunesmith.kube.observed_attempt import latest_attempt
from tunesmith.kube.plan import Plan

from tests.unit.operator import given


def status_after(lower: float, upper: float) -> EvalRunStatus:
    message = TerminationMessage(evaluation=given.measured(lower, upper))
    jobs = [given.batch_job(finished="Complete")]
    attempt = latest_attempt(jobs, [given.ended(message, 0)])
    made = plan(Observed(given.evalrun(), attempt, jobs), given.SETTINGS, given.NOW)
    assert isinstance(made.status, EvalRunStatus)
    return made.status


@pytest.mark.parametrize(
    ("lower", "upper", "bound", "verdict"),
    [
        (0.1, 5, 0, Verdict.PASSED),
        (-1, 5, 0, Verdict.INCONCLUSIVE),
        (-5, -1, 0, Verdict.FAILED),
        (0, 5, 0, Verdict.INCONCLUSIVE),
        (-5, 0, 0, Verdict.FAILED),
        (0, 0, 0, Verdict.FAILED),
        (-2.9, 1, -3, Verdict.PASSED),
        (-3.1, 1, -3, Verdict.INCONCLUSIVE),
        (-9, -3, -3, Verdict.FAILED),
    ],
)
def test_the_whole_interval_decides_and_equal_is_not_better(
    lower: float, upper: float, bound: float, verdict: Verdict
) -> None:
    assert judge(bound, ConfidenceInterval(lower=lower, upper=upper)) is verdict


@pytest.mark.parametrize(
    ("wish", "verdict"),
    [
        (None, Verdict.INCONCLUSIVE),
        (OnInconclusive.FAIL, Verdict.FAILED),
        (OnInconclusive.PASS, Verdict.PASSED),
        (OnInconclusive.EXTEND, Verdict.INCONCLUSIVE),
    ],
)
def test_a_gate_says_what_a_doubt_becomes(wish: OnInconclusive | None, verdict: Verdict) -> None:
    gate = Gate(suite="held-out", on_inconclusive=wish)
    assert judge_all([gate], given.measured(-1, 5).results)[0].verdict is verdict
    assert judge_all([gate], given.measured(1, 5).results)[0].verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("failed", "verdict"), [(5.0, Verdict.PASSED), (5.1, Verdict.INCONCLUSIVE)]
)
def test_a_judge_that_fails_too_often_decides_nothing(failed: float, verdict: Verdict) -> None:
    results = given.measured(1, 5, failed_percent=failed).results
    for wish in (None, *OnInconclusive):
        gate = Gate(suite="held-out", on_inconclusive=wish)
        assert judge_all([gate], results)[0].verdict is verdict


def test_a_suite_that_no_gate_names_has_the_usual_one() -> None:
    suites = [
        Suite.model_validate({"name": "task", "dataset": {"uri": "pvc://data/a.jsonl"}}),
        Suite.model_validate({"name": "knowledge", "benchmark": {"name": "mmlu"}}),
        Suite.model_validate({"name": "other", "benchmark": {"name": "mmlu"}}),
        Suite.model_validate(
            {
                "name": "talk",
                "mtBench": {
                    "questions": "pvc://data/q.jsonl",
                    "judge": {"url": "http://judge/v1", "model": "judge"},
                },
            }
        ),
    ]
    found = all_gates(suites, [Gate(suite="other", minimum_difference=-1)])
    assert {each.suite: each.minimum_difference for each in found} == {
        "task": 0,
        "knowledge": -3,
        "other": -1,
        "talk": -0.3,
    }


def test_a_suite_that_was_not_measured_decides_nothing() -> None:
    """An image of one's own may leave it out."""
    gates = [Gate(suite="held-out"), Gate(suite="forgotten")]
    found = judge_all(gates, given.measured(10, 30).results)
    assert [each.verdict for each in found] == [Verdict.PASSED, Verdict.INCONCLUSIVE]
    assert worst(found) is Verdict.INCONCLUSIVE


def test_a_base_model_alone_is_measured_and_passes_nothing() -> None:
    outcome = given.measured(adapter=None, difference=None, confidence_interval=None)
    message = TerminationMessage(evaluation=outcome.model_copy(update={"digest": None}))
    jobs = [given.batch_job(finished="Complete")]
    attempt = latest_attempt(jobs, [given.ended(message, 0)])
    run = given.evalrun(adapter=None, gates=[])
    status = plan(Observed(run, attempt, jobs), given.SETTINGS, given.NOW).status
    assert isinstance(status, EvalRunStatus)
    assert (status.state, status.verdict) == (EvalState.MEASURED, None)
    passed = find(status.conditions, "Passed")
    assert passed is not None
    assert (passed.status, passed.reason) == (ConditionStatus.FALSE, "NothingCompared")
    later = plan(
        Observed(given.evalrun(adapter=None, gates=[], status=status.to_json())),
        given.SETTINGS,
        given.NOW,
    )
    assert not later.create


def named_job_plan(job: FineTuneJob | None) -> Plan:
    run = given.evalrun(adapter={"job": "triage"})
    return plan(Observed(run, named_job=job), given.SETTINGS, given.NOW)


def test_a_run_of_a_job_waits_until_the_job_has_an_adapter() -> None:
    reasons = []
    for job in (None, given.finetunejob()):
        waiting = named_job_plan(job)
        assert not waiting.create
        assert waiting.requeue_after
        assert isinstance(waiting.status, EvalRunStatus)
        succeeded = find(waiting.status.conditions, "Succeeded")
        assert succeeded is not None
        reasons.append(succeeded.reason)
    assert reasons == ["JobNotFound", "NotTrained"]
    trained = given.finetunejob(status={"artifact": given.artifact().to_json()})
    (created,) = named_job_plan(trained).create
    planned = given.plan_of(created)
    assert (planned["adapter"]["uri"], planned["digest"]) == (given.artifact().uri, given.DIGEST)


def test_a_job_that_will_never_have_an_adapter_is_somebodys_to_mend() -> None:
    failed = named_job_plan(given.finetunejob(status={"state": "Failed"}))
    assert isinstance(failed.status, EvalRunStatus)
    stalled = find(failed.status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.status, stalled.reason) == (ConditionStatus.TRUE, "NoAdapter")


def test_a_job_that_made_a_model_has_no_adapter_and_what_to_write_instead_is_said() -> None:
    artifact = given.artifact(ArtifactKind.MODEL).to_json()
    made = named_job_plan(given.finetunejob(status={"artifact": artifact}))
    assert not made.create
    stalled = find(made.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "NoAdapter"
    assert "mergedModel" in stalled.message


def test_a_run_in_a_queue_waits_for_its_turn() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "team-queue"}
    run = given.evalrun()
    queued = run.model_copy(update={"metadata": run.metadata.model_copy(update={"labels": labels})})
    *_, job = plan(Observed(queued), given.SETTINGS, given.NOW).create
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    jobs = [given.batch_job(spec={"suspend": True}, labels=labels)]
    waiting = plan(Observed(queued, latest_attempt(jobs, []), jobs), given.SETTINGS, given.NOW)
    assert isinstance(waiting.status, EvalRunStatus)
    assert waiting.status.state == "Pending"
    succeeded = find(waiting.status.conditions, "Succeeded")
    assert succeeded is not None
    assert succeeded.reason == "Queued"


def test_a_second_attempt_waits_when_the_jobs_adapter_is_gone() -> None:
    """Its first attempt was lost, and meanwhile the job trains again."""
    jobs = [given.batch_job(finished="Failed")]
    attempt = latest_attempt(jobs, [])
    run = given.evalrun(adapter={"job": "triage"})
    later = given.NOW + timedelta(hours=1)
    made = plan(Observed(run, attempt, jobs, named_job=given.finetunejob()), given.SETTINGS, later)
    assert not made.create
    trained = given.finetunejob(status={"artifact": given.artifact().to_json()})
    again = plan(Observed(run, attempt, jobs, named_job=trained), given.SETTINGS, later)
    assert again.create


def test_a_verdict_of_an_earlier_version_stays_as_it_fell() -> None:
    """It knew neither default gates nor digests of what was asked."""
    old = {
        "verdict": "Passed",
        "adapterDigest": given.DIGEST,
        "baseModelDigest": given.BASE_DIGEST,
        "results": [
            {
                "suite": "held-out",
                "metric": "TokenF1",
                "items": 40,
                "base": 1,
                "adapter": 3,
                "difference": 2,
                "confidenceInterval": {"lower": 1, "upper": 3},
                "datasetDigest": given.DIGEST,
            }
        ],
        "gates": [{"suite": "held-out", "minimumDifference": 0, "verdict": "Passed"}],
    }
    second = {"name": "other", "dataset": {"uri": "pvc://adapters/o.jsonl"}}
    suites = [{"name": "held-out", "dataset": {"uri": "pvc://adapters/h.jsonl"}}, second]
    made = plan(Observed(given.evalrun(suites=suites, status=old)), given.SETTINGS, given.NOW)
    assert isinstance(made.status, EvalRunStatus)
    assert (made.status.verdict, made.status.state) == (Verdict.PASSED, EvalState.PASSED)
    assert not made.create


def test_what_so_few_items_cannot_show_is_said_before_they_are_asked() -> None:
    suite = {"name": "held-out", "dataset": {"uri": "pvc://adapters/h.jsonl"}}
    for items, warned in ((100, "100 items detect 12.5 points"), (500, None)):
        run = given.evalrun(suites=[{**suite, "maxItems": items}])
        status = plan(Observed(run), given.SETTINGS, given.NOW).status
        assert isinstance(status, EvalRunStatus)
        warning = find(status.conditions, "Warning")
        assert (warning is None) == (warned is None)
        assert warning is None or str(warned) in warning.message


def test_the_worst_gate_decides() -> None:
    def gates(*verdicts: Verdict) -> list[GateResult]:
        return [GateResult(suite="s", minimum_difference=0, verdict=each) for each in verdicts]

    assert worst(gates(Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE)) is Verdict.FAILED
    assert worst(gates(Verdict.PASSED, Verdict.INCONCLUSIVE)) is Verdict.INCONCLUSIVE
    assert worst(gates(Verdict.PASSED)) is Verdict.PASSED


@pytest.mark.parametrize(
    ("lower", "upper", "passed", "state"),
    [
        (1, 5, ConditionStatus.TRUE, EvalState.PASSED),
        (-1, 5, ConditionStatus.FALSE, EvalState.INCONCLUSIVE),
        (-5, -1, ConditionStatus.FALSE, EvalState.FAILED),
    ],
)
def test_a_verdict_is_a_success_of_the_run_whatever_it_says(
    lower: float, upper: float, passed: ConditionStatus, state: EvalState
) -> None:
    status = status_after(lower, upper)
    succeeded, gate = find(status.conditions, "Succeeded"), find(status.conditions, "Passed")
    assert succeeded is not None
    assert gate is not None
    assert succeeded.status is ConditionStatus.TRUE
    assert gate.status is passed
    assert status.state is state
    assert status.adapter_digest == given.DIGEST


def test_a_verdict_outlives_its_batch_job() -> None:
    status = status_after(1, 5)
    later = plan(Observed(given.evalrun(status=status.to_json())), given.SETTINGS, given.NOW)
    assert isinstance(later.status, EvalRunStatus)
    assert later.status.verdict is Verdict.PASSED
    assert not later.create


def test_a_finished_run_is_at_a_hundred_percent_although_the_last_report_was_earlier() -> None:
    status = status_after(1, 5)
    assert status.progress is not None
    assert status.progress.percent == 100
