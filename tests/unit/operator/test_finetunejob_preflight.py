"""What happens to a FineTuneJob before its first attempt of training."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.job_status import FineTuneJobStatus, JobState
from tunesmith.api.objects import Condition, ConditionStatus
from tunesmith.finetunejob.decision import Observed
from tunesmith.finetunejob.plan import plan
from tunesmith.kube.conditions import find
from tunesmith.kube.observed_attempt import latest_attempt
from tunesmith.kube.plan import Plan

from tests.unit.operator import given


def planned(observed: Observed) -> Plan:
    return plan(observed, given.SETTINGS, given.NOW)


def status_of(made: Plan) -> FineTuneJobStatus:
    assert isinstance(made.status, FineTuneJobStatus)
    return made.status


def condition(made: Plan, type_: str = "Preflight") -> Condition:
    found = find(made.status.conditions, type_)
    assert found is not None
    return found


def kinds(made: Plan) -> list[str]:
    return [each["kind"] for each in made.create]


def job(preflight: str = "Advise", status: given.Raw | None = None) -> Any:
    """Its data is ready."""
    remembered = given.prepared(**(status or {}))
    return given.finetunejob(status=remembered, evaluation={"preflight": preflight})


def run(
    base: float | None = None, prompted: float | None = None, stalled: str = "", **status: Any
) -> EvalRun:
    """The EvalRun before training, under way unless it has a score or is stalled."""
    conditions = []
    if base is not None:
        changes: dict[str, Any] = {
            "base": base,
            "prompted_base": prompted,
            "adapter": None,
            "difference": None,
        }
        status["results"] = given.measured(**changes).to_json()["results"]
        conditions.append(_condition("Succeeded", "Measured", ""))
    if stalled:
        conditions.append(_condition("Stalled", "DatasetEmpty", stalled))
    return given.evalrun("triage-preflight", status={"conditions": conditions, **status})


def _condition(type_: str, reason: str, message: str) -> given.Raw:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": given.moment(5),
    }


def measured(preflight: str, base: float, prompted: float | None = None) -> Plan:
    return planned(Observed(job(preflight), eval_runs=[run(base, prompted)]))


def error() -> EvalRun:
    failure = {
        "attempt": 4,
        "class": "Internal",
        "reason": "InternalError",
        "message": "It broke.",
        "finishedAt": given.moment(5),
    }
    return run(stalled="It broke.", state="Error", failure=failure)


def test_the_base_model_is_measured_before_anything_is_trained() -> None:
    made = planned(Observed(job()))
    assert [(each["kind"], each["metadata"]["name"]) for each in made.create] == [
        ("EvalRun", "triage-preflight")
    ]
    assert status_of(made).state is JobState.PREFLIGHT
    assert condition(made, "Succeeded").reason == "Preflight"
    assert status_of(made).job_name is None


def test_while_it_is_measured_nothing_else_is_made() -> None:
    made = planned(Observed(job(), eval_runs=[run()]))
    assert not made.create
    assert status_of(made).state is JobState.PREFLIGHT


def test_off_trains_at_once_and_says_nothing() -> None:
    made = planned(Observed(job("Skip")))
    assert kinds(made) == ["Job"]
    assert find(made.status.conditions, "Preflight") is None


@pytest.mark.parametrize(
    ("base", "prompted", "status", "reason"),
    [
        (40, 69.9, ConditionStatus.FALSE, "BelowBand"),
        (40, 70, ConditionStatus.TRUE, "InBand"),
        (80, 60, ConditionStatus.TRUE, "InBand"),
        (75, None, ConditionStatus.TRUE, "InBand"),
        (60, 80.1, ConditionStatus.FALSE, "AboveBand"),
    ],
)
def test_the_better_side_of_the_base_model_counts(
    base: float, prompted: float | None, status: ConditionStatus, reason: str
) -> None:
    made = measured("Advise", base, prompted)
    assert (condition(made).status, condition(made).reason) == (status, reason)
    assert kinds(made) == ["Job"]


def test_the_message_has_the_figures_and_what_they_are_worth() -> None:
    message = condition(measured("Advise", 40, 55)).message
    assert "55.0 points of TokenF1 under its best system prompt" in message
    assert "40.0" in message
    assert "100 held-out examples detect 12.5 points" in message
    assert "more specialised way" in message


@pytest.mark.parametrize("base", [40, 95])
def test_require_trains_nothing_outside_the_band_and_says_how_to(base: float) -> None:
    made = measured("Require", base)
    assert not made.create
    assert status_of(made).state is JobState.REJECTED
    stalled = condition(made, "Stalled")
    assert stalled.status is ConditionStatus.TRUE
    assert "evaluation.preflight: Advise" in stalled.message


def test_require_trains_inside_the_band() -> None:
    assert kinds(measured("Require", 75)) == ["Job"]


def test_the_result_outlives_its_eval_run() -> None:
    first = measured("Require", 40)
    again = planned(Observed(job("Require", status=first.status.to_json())))
    assert again.status == first.status
    assert not again.create


def test_what_is_observed_counts_more_than_what_is_remembered() -> None:
    first = measured("Require", 40)
    seen = Observed(job("Require", status=first.status.to_json()), eval_runs=[run(75)])
    assert kinds(planned(seen)) == ["Job"]


def test_it_is_never_measured_again_once_training_has_begun() -> None:
    jobs = [given.batch_job()]
    running = planned(Observed(job(), latest_attempt(jobs, [given.pod()]), jobs))
    assert not running.create
    deleted = planned(Observed(job(status={"attempt": 1})))
    assert kinds(deleted) == ["Job"]
    assert condition(running).reason == condition(deleted).reason == "NotMeasured"


def test_the_condition_stays_while_it_trains() -> None:
    jobs = [given.batch_job()]
    attempt = latest_attempt(jobs, [given.pod()])
    made = planned(Observed(job(), attempt, jobs, eval_runs=[run(75)]))
    assert condition(made).reason == "InBand"


@pytest.mark.parametrize("preflight", ["Advise", "Require"])
def test_what_stops_the_eval_run_is_passed_on(preflight: str) -> None:
    waits = run(stalled="The dataset is empty.")
    made = planned(Observed(job(preflight), eval_runs=[waits]))
    assert not made.create
    assert status_of(made).state is JobState.WAITING
    assert "The dataset is empty." in condition(made, "Stalled").message


def test_an_eval_run_that_failed_for_good_does_not_keep_advise_from_training() -> None:
    made = planned(Observed(job("Advise"), eval_runs=[error()]))
    assert kinds(made) == ["Job"]
    assert condition(made).status is ConditionStatus.UNKNOWN
    assert "It broke." in condition(made).message


def test_an_eval_run_that_failed_for_good_keeps_require_waiting() -> None:
    made = planned(Observed(job("Require"), eval_runs=[error()]))
    assert not made.create
    assert "kubectl delete evalrun triage-preflight" in condition(made, "Stalled").message


def test_its_examples_are_counted_for_the_warning_about_too_few() -> None:
    made = planned(
        Observed(given.finetunejob(evaluation={"preflight": "Require"}), eval_runs=[run(40)])
    )
    assert "100 held-out examples detect 12.5 points" in condition(made, "Warning").message
