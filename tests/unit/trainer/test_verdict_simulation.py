"""How often the verdict is wrong when the truth is known.

A true difference exactly at the bound is the worst case for both errors: Passed is wrong, for the
adapter is not above the bound, and Failed is wrong, for it is no more than a hair below. Each may
happen in 2.5% of the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tunesmith.api.verdict import ConfidenceInterval, Verdict, judge

numpy = pytest.importorskip("numpy")
pytest.importorskip("scipy")

from tunesmith_trainer.evaluate.looks import confidence, schedule  # noqa: E402
from tunesmith_trainer.evaluate.statistics import compare, intervals  # noqa: E402

RUNS = 2000
BOUND = -3.0
SUBJECTS = 57


def simulation_error(rate: float) -> float:
    """What chance adds to a rate over so many runs, exceeded once in a thousand times."""
    return 3.1 * float(numpy.sqrt(rate * (1 - rate) / RUNS))


def differences(items: int, changed: float, true_difference: float, seed: int) -> Any:
    """Paired differences of right and wrong answers, in points: shape (runs, items)."""
    rises = (changed + true_difference / 100) / 2
    shares = [changed - rises, 1 - changed, rises]
    generator = numpy.random.default_rng(seed)
    return generator.choice([-100.0, 0.0, 100.0], (RUNS, items), p=shares)


def verdicts(found: Any, groups: Sequence[str], percent: float = 95.0) -> Any:
    lower, upper = intervals(found, groups, percent)
    ends = zip(lower.tolist(), upper.tolist(), strict=True)
    return numpy.array(
        [judge(BOUND, ConfidenceInterval(lower=below, upper=above)) for below, above in ends]
    )


def rate(found: Any) -> float:
    return float(numpy.mean(found))


@pytest.mark.parametrize("changed", [0.08, 0.2])
@pytest.mark.parametrize("items", [60, 300, 1500])
def test_at_the_bound_each_wrong_verdict_is_rare(items: int, changed: float) -> None:
    found = verdicts(differences(items, changed, BOUND, seed=items), [""] * items)
    allowed = 0.025 + simulation_error(0.025)
    assert rate(found == Verdict.PASSED) <= allowed
    assert rate(found == Verdict.FAILED) <= allowed


def test_enough_items_decide_when_the_truth_is_clear() -> None:
    """An interval that never decides would be wrong as rarely."""
    passing = verdicts(differences(1500, 0.08, 0.0, seed=1), [""] * 1500)
    failing = verdicts(differences(1500, 0.08, -6.0, seed=2), [""] * 1500)
    assert rate(passing == Verdict.PASSED) > 0.95
    assert rate(failing == Verdict.FAILED) > 0.95


def test_what_is_simulated_is_what_is_compared() -> None:
    sample = differences(60, 0.2, BOUND, seed=3)[0]
    groups = ["law", "physics", ""] * 20
    lower, upper = intervals(sample, groups, 95.0)
    interval = compare([0.0] * 60, sample, groups, 95.0).interval
    assert (interval.lower, interval.upper) == (round(float(lower), 2), round(float(upper), 2))


def coverage(found: Any, groups: Sequence[str]) -> float:
    lower, upper = intervals(found, groups, 95.0)
    return rate((lower <= BOUND) & (upper >= BOUND))


def test_subjects_that_differ_are_covered_and_independence_would_be_too_narrow() -> None:
    """57 subjects of 5 to 35 items; the true difference varies by 12 points between subjects."""
    generator = numpy.random.default_rng(4)
    subjects = numpy.repeat(numpy.arange(SUBJECTS), generator.integers(5, 36, SUBJECTS))
    effects = generator.normal(BOUND / 100, 0.12, (RUNS, SUBJECTS))[:, subjects]
    rises = numpy.clip((0.4 + effects) / 2, 0, 0.4)
    drawn = generator.random((RUNS, subjects.size))
    found = 100.0 * (drawn < rises) - 100.0 * (drawn > 0.6 + rises)

    named = [f"subject {number}" for number in subjects]
    assert abs(coverage(found, named) - 0.95) <= 0.01 + simulation_error(0.05)
    assert coverage(found, [""] * subjects.size) < 0.9


def test_independent_subjects_cost_nothing_much() -> None:
    sample = differences(SUBJECTS * 10, 0.2, BOUND, seed=5)
    named = [f"subject {item % SUBJECTS}" for item in range(SUBJECTS * 10)]
    assert 0.95 - simulation_error(0.05) <= coverage(sample, named) <= 0.985


@pytest.mark.parametrize("subjects", [2, 4])
def test_few_subjects_are_covered_too(subjects: int) -> None:
    generator = numpy.random.default_rng(6)
    effects = generator.normal(BOUND, 8, (RUNS, subjects))
    found = numpy.repeat(effects, 50, axis=1) + generator.normal(0, 30, (RUNS, subjects * 50))
    named = [f"subject {item // 50}" for item in range(subjects * 50)]
    assert coverage(found, named) >= 0.95 - simulation_error(0.05)


def wrong_at_some_look(percent: float, looks: Sequence[int]) -> float:
    """The share of runs that are decided, and so wrongly, at any of the looks."""
    found = differences(looks[-1], 0.2, BOUND, seed=7)
    decided = [verdicts(found[:, :items], [""] * items, percent) for items in looks]
    return rate(numpy.any([each != Verdict.INCONCLUSIVE for each in decided], axis=0))


def test_asking_for_more_does_not_make_a_wrong_verdict_more_likely() -> None:
    looks = schedule(200, 1600, extend=True)
    allowed = 0.05 + simulation_error(0.05)
    assert wrong_at_some_look(confidence(len(looks)), looks) <= allowed
    assert wrong_at_some_look(95.0, looks) > allowed
