"""What is recommended about an adapter that did not pass."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.evalrun import GateResult, GroupDifference, SuiteResult
from tunesmith.api.evaluation_suite import (
    Benchmark,
    EvaluationDataset,
    Judge,
    MtBench,
    OnInconclusive,
    Suite,
)
from tunesmith.api.job_evaluation import Action, Recommendation, Tunable
from tunesmith.api.training import Training
from tunesmith.api.verdict import ConfidenceInterval, Verdict
from tunesmith.finetunejob.recommendation import Evidence, recommend, sentence

from tests.unit.operator import given

MT_BENCH = MtBench(questions="pvc://q/q.jsonl", judge=Judge(url="https://judge", model="j"))
SUITES = [
    Suite(name="held-out", dataset=EvaluationDataset(uri="pvc://a/h.jsonl")),
    Suite(name="mmlu", benchmark=Benchmark()),
    Suite(name="mt-bench", mt_bench=MT_BENCH),
]
BOUNDS = {"held-out": 0.0, "mmlu": -3.0, "mt-bench": -0.3}
ROSE_AFTER_FIRST = [1.0, 1.2, 1.4]
STILL_FALLS = [1.0, 0.8, 0.6]
FLAT = [1.0, 1.0, 1.0]


def result(suite: str, **changes: Any) -> SuiteResult:
    (one,) = given.measured(suite=suite, difference=-5.2, **changes).results
    return one


def advice(
    verdicts: dict[str, Verdict],
    *,
    epochs: int = 3,
    learning_rate: float = 2e-4,
    results: list[SuiteResult] | None = None,
    **more: Any,
) -> Recommendation:
    gates = [
        GateResult(suite=suite, minimum_difference=BOUNDS[suite], verdict=verdict)
        for suite, verdict in verdicts.items()
    ]
    training = Training(epochs=epochs, learning_rate=learning_rate)
    measured = results if results is not None else [result(each) for each in verdicts]
    found = recommend(Evidence(training, SUITES, measured, gates, **more))
    assert found is not None
    return found


def forgetting(**more: Any) -> Recommendation:
    return advice({"mmlu": Verdict.FAILED}, **more)


def chat(**more: Any) -> Recommendation:
    return advice({"mt-bench": Verdict.FAILED}, **more)


def task(**more: Any) -> Recommendation:
    return advice({"held-out": Verdict.FAILED}, **more)


def doubt(suite: str = "held-out", **more: Any) -> Recommendation:
    return advice({suite: Verdict.INCONCLUSIVE}, **more)


def change(found: Recommendation) -> tuple[Tunable | None, float | None, float | None]:
    return found.field, found.before, found.after


def test_nothing_is_recommended_when_every_gate_holds() -> None:
    passed = GateResult(suite="mmlu", minimum_difference=-3, verdict=Verdict.PASSED)
    assert recommend(Evidence(Training(), SUITES, [], [passed])) is None


# --- general knowledge is lost -------------------------------------------------------------------


def test_forgetting_with_a_rising_loss_asks_for_the_epochs_that_were_good() -> None:
    assert change(forgetting(eval_losses=ROSE_AFTER_FIRST)) == (Tunable.EPOCHS, 3, 1)


@pytest.mark.parametrize(("now", "then"), [(2e-4, 1e-4), (1.5e-4, 7.5e-5), (1e-3, 5e-4)])
def test_forgetting_halves_a_learning_rate_that_is_not_gentle(now: float, then: float) -> None:
    found = forgetting(learning_rate=now, eval_losses=FLAT)
    assert change(found) == (Tunable.LEARNING_RATE, now, then)
    assert found.action is Action.LOWER_LEARNING_RATE


@pytest.mark.parametrize(("now", "then"), [(2, 1), (3, 2), (4, 2), (9, 4)])
def test_forgetting_at_a_gentle_learning_rate_asks_for_fewer_epochs(now: int, then: int) -> None:
    assert change(forgetting(learning_rate=5e-5, epochs=now)) == (Tunable.EPOCHS, now, then)


def test_forgetting_in_one_gentle_epoch_is_for_the_data_to_mend() -> None:
    found = forgetting(learning_rate=5e-5, epochs=1)
    assert found.action is Action.MIX_IN_GENERAL_DATA
    assert found.field is None


def test_the_subjects_that_fell_are_named() -> None:
    fallen = [GroupDifference(name="law", items=50, difference=-12)]
    found = forgetting(results=[result("mmlu", fallen=fallen)])
    assert "mmlu fell by 5.2 points, most in law (-12.0)" in found.because


def test_a_dataset_that_may_lose_some_points_watches_over_forgetting_too() -> None:
    suite = Suite(name="manners", dataset=EvaluationDataset(uri="pvc://a/m.jsonl"))
    gate = GateResult(suite="manners", minimum_difference=-2, verdict=Verdict.FAILED)
    found = recommend(Evidence(Training(), [suite], [], [gate]))
    assert found is not None
    assert found.action is Action.LOWER_LEARNING_RATE


# --- conversation suffers ------------------------------------------------------------------------


def test_a_drop_in_conversation_is_for_the_data_to_mend() -> None:
    found = chat(dataset=given.receipt(train_rows=9000))
    assert (found.action, found.field) == (Action.REVIEW_DATA, None)
    assert "9000 examples" in found.because


def test_a_drop_in_conversation_with_a_rising_loss_asks_for_fewer_epochs() -> None:
    assert change(chat(eval_losses=ROSE_AFTER_FIRST)) == (Tunable.EPOCHS, 3, 1)


# --- the task is not learnt ----------------------------------------------------------------------


@pytest.mark.parametrize(("now", "then"), [(3, 6), (60, 100)])
def test_a_loss_that_still_falls_asks_for_more_epochs(now: int, then: int) -> None:
    found = task(epochs=now, eval_losses=STILL_FALLS)
    assert change(found) == (Tunable.EPOCHS, now, then)
    assert found.action is Action.MORE_EPOCHS


def test_learnt_by_heart_asks_for_the_epochs_that_were_good() -> None:
    assert change(task(eval_losses=[1.0, 0.8, 0.9])) == (Tunable.EPOCHS, 3, 2)


def test_many_duplicates_are_cleaned_first() -> None:
    found = task(dataset=given.receipt(rows=1000, duplicate_rows=300), learning_rate=1e-5)
    assert found.action is Action.CLEAN_DATA
    assert "30%" in found.because


def test_a_timid_learning_rate_is_doubled() -> None:
    assert change(task(learning_rate=4e-5)) == (Tunable.LEARNING_RATE, 4e-5, 8e-5)


def test_few_examples_ask_for_more_and_enough_of_them_for_a_look() -> None:
    assert task(dataset=given.receipt(train_rows=40)).action is Action.ADD_DATA
    assert task(dataset=given.receipt()).action is Action.REVIEW_DATA


def test_a_change_of_the_loss_by_chance_says_nothing() -> None:
    assert task(eval_losses=[1.0, 0.999, 1.001]).action is Action.REVIEW_DATA


def test_one_epoch_alone_does_not_tell_where_the_loss_goes() -> None:
    assert task(epochs=1, eval_losses=[1.0]).field is None


# --- a doubt -------------------------------------------------------------------------------------


def test_a_doubt_asks_for_the_held_out_examples_that_were_not_asked() -> None:
    found = doubt(dataset=given.receipt(held_out_rows=700))
    assert found.action is Action.ASK_MORE
    assert "there are 700" in found.because
    assert "onInconclusive: Extend" in sentence(found)


def test_a_doubt_after_all_were_asked_wants_more_held_out() -> None:
    assert doubt(dataset=given.receipt(held_out_rows=100)).action is Action.HOLD_OUT_MORE
    extended = doubt(
        dataset=given.receipt(held_out_rows=700), on_inconclusive=OnInconclusive.EXTEND
    )
    assert extended.action is Action.HOLD_OUT_MORE


def test_a_doubt_with_half_of_the_data_held_out_wants_more_data() -> None:
    found = doubt(dataset=given.receipt(held_out_rows=100), held_out_fraction=0.5)
    assert found.action is Action.ADD_DATA


def test_a_doubt_about_a_benchmark_wants_more_of_its_questions_while_there_are_more() -> None:
    fast = result("mmlu", approximate=True)
    assert doubt("mmlu", results=[fast]).action is Action.ASK_MORE
    assert doubt("mmlu").action is Action.SETTLE_DOUBT


@pytest.mark.parametrize("suite", ["held-out", "mmlu"])
def test_a_doubt_that_counts_as_a_failure_is_no_reason_to_train_again(suite: str) -> None:
    """What would be changed for it would be changed for chance."""
    interval = ConfidenceInterval(lower=BOUNDS[suite] - 2, upper=BOUNDS[suite] + 2)
    measured = result(suite).model_copy(update={"confidence_interval": interval})
    assert advice({suite: Verdict.FAILED}, results=[measured]).field is None


def test_a_judge_that_failed_is_named_whatever_the_gate_says() -> None:
    for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
        measured = result("mt-bench", failed_percent=60.0)
        assert advice({"mt-bench": verdict}, results=[measured]).action is Action.MEND_JUDGE


def test_a_judge_that_often_fails_is_mended_first() -> None:
    found = doubt("mt-bench", results=[result("mt-bench", failed_percent=20.0)])
    assert found.action is Action.MEND_JUDGE


# --- several gates -------------------------------------------------------------------------------


def test_damage_is_mended_before_gain_is_sought() -> None:
    both = {"held-out": Verdict.FAILED, "mmlu": Verdict.FAILED}
    assert advice(both, eval_losses=STILL_FALLS).action is Action.LOWER_LEARNING_RATE


def test_a_failure_comes_before_a_doubt() -> None:
    both = {"mmlu": Verdict.INCONCLUSIVE, "held-out": Verdict.FAILED}
    assert advice(both, eval_losses=STILL_FALLS).action is Action.MORE_EPOCHS


def test_the_sentence_says_what_to_set_and_why() -> None:
    assert sentence(forgetting()) == (
        "Set training.learningRate to 0.0001, not 0.0002: mmlu fell by 5.2 points."
    )
