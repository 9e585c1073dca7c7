"""Two EvalRuns side by side: their numbers, and whether they may be compared at all."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.evalrun import EvalRun
from tunesmith.commandline.compare import SuiteComparison, compare, lines
from tunesmith.commandline.outcome import Refusal

from tests.unit.operator import given

ASKED = {"data": "sha256:" + "1" * 64, "prompts": "sha256:" + "2" * 64}
TASK = {"task": "mmlu 1, lm_eval 0.4.13"}


def result(adapter: float | None, suite: str = "held-out", **changes: Any) -> dict[str, Any]:
    fields = {"suite": suite, "metric": "TokenF1", "items": 300, "base": 60, "asked": ASKED}
    return {**fields, **({} if adapter is None else {"adapter": adapter}), **changes}


def run(name: str, *results: dict[str, Any], **status: Any) -> EvalRun:
    gates = [
        {"suite": each["suite"], "minimumDifference": 0, "verdict": "Passed"} for each in results
    ]
    told = {"results": list(results), "gates": gates, "baseModelDigest": given.BASE_DIGEST}
    return given.evalrun(name, status={**told, **status})


def compared(first: EvalRun, second: EvalRun) -> SuiteComparison:
    (found,) = compare(first, second)
    return found


def test_runs_that_asked_the_same_have_a_difference() -> None:
    found = compared(run("one", result(70)), run("two", result(72.5)))
    assert found.difference == pytest.approx(2.5)
    assert found.to_json()["comparable"] is True
    assert found.to_json()["second"] == {"score": 72.5, "verdict": "Passed"}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (run("two", result(72, asked={**ASKED, "data": given.DIGEST})), "other rows"),
        (run("two", result(72, asked={**ASKED, "prompts": given.DIGEST})), "other prompts"),
        (run("two", result(72, asked={**ASKED, **TASK})), "another task or version"),
        (run("two", result(72, asked={**ASKED, "judge": "wise"})), "another judge"),
        (run("two", result(72, asked=None)), "does not say what it asked"),
        (run("two", result(72, metric="Bleu")), "another metric"),
        (run("two", result(72), baseModelDigest=given.DIGEST), "another base model"),
        (run("two", result(72), chatTemplateDigest=given.DIGEST), "another chat template"),
    ],
)
def test_runs_that_asked_something_else_have_none_and_say_why(second: EvalRun, said: str) -> None:
    found = compared(run("one", result(70)), second)
    assert found.difference is None
    assert any(said in reason for reason in found.reasons)


def test_a_suite_that_only_one_has_is_shown_and_not_compared() -> None:
    found = compare(run("one", result(70)), run("two", result(70), result(50, "mmlu")))
    assert [(each.suite, bool(each.reasons)) for each in found] == [
        ("held-out", False),
        ("mmlu", True),
    ]
    assert found[1].reasons == ("one has no such suite",)


def test_the_base_model_alone_has_its_own_score() -> None:
    found = compared(run("before", result(None)), run("after", result(72)))
    assert found.difference == pytest.approx(12)


def test_a_run_without_results_is_no_run_to_compare() -> None:
    with pytest.raises(Refusal, match="Running and has no results"):
        compare(run("one", result(70)), run("two", state="Running"))


def test_the_table_has_both_numbers_the_difference_and_the_verdicts() -> None:
    one, two = run("one", result(70)), run("two", result(72.5))
    heading, row, *_ = lines(one, two, compare(one, two))
    assert heading.split() == ["SUITE", "ONE", "TWO", "DIFFERENCE", "VERDICTS", "COMPARABLE"]
    assert row.split() == ["held-out", "70.0", "72.5", "+2.5", "Passed", "/", "Passed", "yes"]
