"""What happens next to an EvalRun, and how its verdict follows from what was measured."""

from __future__ import annotations

import pytest
from tunesmith.api.evalrun import EvalRunStatus, EvalState, Gate, GateResult, Verdict
from tunesmith.api.objects import ConditionStatus
from tunesmith.api.trainer_contract import TerminationMessage
from tunesmith.evalrun.plan import Observed, plan
from tunesmith.evalrun.verdict import judge, worst
from tunesmith.kube.attempts import latest_attempt
from tunesmith.kube.conditions import find

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
    result = given.measured(lower, upper).results[0]
    assert judge(Gate(suite="held-out", minimum_difference=bound), result) is verdict


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
