"""``compare``: two EvalRuns, suite by suite, and whether they asked the same. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.api.evalrun import Asked, EvalRun, SuiteResult
from tunesmith.commandline.connection import Object
from tunesmith.commandline.layout import points, short, signed, table
from tunesmith.commandline.outcome import Refusal

MISSING = "-"


@dataclass(frozen=True)
class Side:
    """What one run says of a suite. ``score`` is the adapter's, or the base model's alone."""

    score: float | None
    #: None where no gate names the suite.
    verdict: str | None
    result: SuiteResult


@dataclass(frozen=True)
class SuiteComparison:
    """One suite of both runs."""

    suite: str
    first: Side | None
    second: Side | None
    #: What keeps the two numbers from being compared, a sentence each.
    reasons: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Second minus first, in points, where both asked the same."""
        if self.reasons or not (self.first and self.second):
            return None
        if self.first.score is None or self.second.score is None:
            return None
        return self.second.score - self.first.score

    def to_json(self) -> Object:
        sides = {"first": self.first, "second": self.second}
        return {
            "suite": self.suite,
            **{
                key: side and {"score": side.score, "verdict": side.verdict}
                for key, side in sides.items()
            },
            "difference": self.difference,
            "comparable": not self.reasons,
            "reasons": list(self.reasons),
        }


def compare(first: EvalRun, second: EvalRun) -> list[SuiteComparison]:
    """Suite by suite, in the first run's order. Raises Refusal where a run has no results."""
    for run in (first, second):
        if not run.status.results:
            raise Refusal(
                f"EvalRun {run.metadata.name} is {run.status.state or 'new'} and has no results"
            )
    both = tuple(_differences_of_runs(first, second))
    names = [each.suite for each in (*first.status.results, *second.status.results)]
    return [_suite(name, first, second, both) for name in dict.fromkeys(names)]


def _suite(name: str, first: EvalRun, second: EvalRun, both: tuple[str, ...]) -> SuiteComparison:
    one, other = _side(first, name), _side(second, name)
    if one is None or other is None:
        lacking = (first if one is None else second).metadata.name
        return SuiteComparison(name, one, other, (f"{lacking} has no such suite",))
    reasons = (*both, *_differences(one.result, other.result))
    return SuiteComparison(name, one, other, reasons)


def _side(run: EvalRun, suite: str) -> Side | None:
    result = next((each for each in run.status.results if each.suite == suite), None)
    if result is None:
        return None
    gate = next((each for each in run.status.gates if each.suite == suite), None)
    score = result.base if result.adapter is None else result.adapter
    return Side(score, str(gate.verdict) if gate else None, result)


def _differences_of_runs(first: EvalRun, second: EvalRun) -> Iterator[str]:
    one, other = first.status, second.status
    if one.base_model_digest != other.base_model_digest:
        yield "another base model"
    if one.chat_template_digest != other.chat_template_digest:
        yield "another chat template"


def _differences(first: SuiteResult, second: SuiteResult) -> Iterator[str]:
    if first.metric != second.metric:
        yield f"another metric: {first.metric} and {second.metric}"
    one, other = first.asked, second.asked
    if one is None or other is None:
        yield "one of them does not say what it asked"
        return
    yield from _differently_asked(one, other)


def _differently_asked(one: Asked, other: Asked) -> Iterator[str]:
    if one.data != other.data:
        yield f"other rows: {short(one.data)} and {short(other.data)}"
    elif one.prompts != other.prompts:
        yield f"the same rows in other prompts: {short(one.prompts)} and {short(other.prompts)}"
    if one.task != other.task:
        yield f"another task or version: {one.task} and {other.task}"
    if one.judge != other.judge:
        yield f"another judge: {one.judge} and {other.judge}"


def lines(first: EvalRun, second: EvalRun, found: list[SuiteComparison]) -> Iterator[str]:
    """For people."""
    names = first.metadata.name, second.metadata.name
    rows = [("SUITE", *(name.upper() for name in names), "DIFFERENCE", "VERDICTS", "COMPARABLE")]
    for each in found:
        sides = (each.first, each.second)
        rows.append(
            (
                each.suite,
                *(points(side.score if side else None) for side in sides),
                signed(each.difference),
                " / ".join((side and side.verdict) or MISSING for side in sides),
                "no: " + "; ".join(each.reasons) if each.reasons else "yes",
            )
        )
    yield from table(rows)
    yield ""
    yield f"The difference is {names[1]} minus {names[0]}, in points, and"
    yield "without a confidence interval: each run pairs its items with its own base model's."
