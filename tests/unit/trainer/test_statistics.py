"""The interval around a difference."""

from __future__ import annotations

import json

import pytest

numpy = pytest.importorskip("numpy")

from tunesmith_trainer.evaluate.statistics import compare  # noqa: E402


def test_the_interval_agrees_with_the_normal_approximation() -> None:
    generator = numpy.random.default_rng(0)
    base = generator.normal(50, 20, 400)
    adapter = base + generator.normal(5, 10, 400)
    comparison = compare(base, adapter)
    differences = adapter - base
    half_width = 1.96 * differences.std(ddof=1) / 20
    assert comparison.interval.lower == pytest.approx(differences.mean() - half_width, abs=0.15)
    assert comparison.interval.upper == pytest.approx(differences.mean() + half_width, abs=0.15)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = numpy.random.default_rng(1)
    covered = 0
    for _ in range(120):
        interval = compare([0] * 60, generator.normal(3, 10, 60)).interval
        covered += interval.lower <= 3 <= interval.upper
    assert 105 <= covered <= 120


def test_pairing_makes_the_interval_narrow() -> None:
    """Both sides find the same items hard: that must not widen the difference."""
    base = [0.0, 100.0] * 50
    adapter = [score + 1 for score in base]
    interval = compare(base, adapter).interval
    assert interval.lower == interval.upper == 1


def test_all_ties_are_a_difference_of_nothing() -> None:
    comparison = compare([40, 60], [40, 60])
    assert (comparison.difference, comparison.interval.lower, comparison.interval.upper) == (
        0,
        0,
        0,
    )


def test_two_items_can_be_compared() -> None:
    comparison = compare([0, 0], [0, 100])
    assert (comparison.interval.lower, comparison.difference, comparison.interval.upper) == (
        0,
        50,
        100,
    )


def test_the_same_answers_give_the_same_interval_and_plain_numbers() -> None:
    scores = list(range(97))
    first, second = compare([0] * 97, scores), compare([0] * 97, scores)
    assert first == second
    assert json.loads(json.dumps(first.base)) == 0


@pytest.mark.parametrize(("base", "adapter"), [([], []), ([1], [1, 2])])
def test_sides_that_cannot_be_paired_are_an_error(base: list[float], adapter: list[float]) -> None:
    with pytest.raises(ValueError, match="the same items"):
        compare(base, adapter)
