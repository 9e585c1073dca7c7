"""Points for answers."""

from __future__ import annotations

import pytest
from tunesmith.api.evalrun import Metric
from tunesmith_trainer.evaluate.metrics import resolve, score


@pytest.mark.parametrize(
    ("metric", "expected", "answer", "points"),
    [
        (Metric.EXACT_MATCH, "yes", " yes\n", 100),
        (Metric.EXACT_MATCH, "yes", "Yes", 0),
        (Metric.ACCURACY, "Not  Spam", "not spam ", 100),
        (Metric.ACCURACY, "spam", "not spam", 0),
        (Metric.TOKEN_F1, "the cat sat", "A cat, sat!", 100),
        (Metric.TOKEN_F1, "cat sat", "cat ran", 50),
        (Metric.TOKEN_F1, "cat", "", 0),
        (Metric.TOKEN_F1, "the", "a", 100),
        (Metric.TOKEN_F1, "b b", "b", 200 / 3),
        (Metric.JSON_FIELD_F1, '{"a": 1, "b": "x"}', '{"b": "x", "a": 1.0}', 100),
        (Metric.JSON_FIELD_F1, '{"a": 1, "b": 2}', '{"a": 1}', 200 / 3),
        (Metric.JSON_FIELD_F1, '{"a": 1}', '{"a": 1, "b": 2, "c": 3}', 50),
        (Metric.JSON_FIELD_F1, '{"a": {"b": [1, 2]}}', '{"a": {"b": [2, 1]}}', 0),
        (Metric.JSON_FIELD_F1, '{"a": 1}', '{"a": "1"}', 0),
        (Metric.JSON_FIELD_F1, '{"a": 1}', '{"a": true}', 0),
        (Metric.JSON_FIELD_F1, '{"a": 1}', 'Sure! {"a": 1}', 0),
        (Metric.JSON_FIELD_F1, '{"a": 1}', "null", 0),
        (Metric.JSON_FIELD_F1, "{}", "{}", 100),
        (Metric.JSON_FIELD_F1, '{"a": 1}', "[" * 100_000, 0),
        (Metric.JSON_FIELD_F1, '{"a": NaN}', '{"a": NaN}', 100),
    ],
)
def test_points(metric: Metric, expected: str, answer: str, points: float) -> None:
    assert score(metric, expected, answer) == pytest.approx(points)


@pytest.mark.parametrize(
    ("expected", "metric"),
    [
        (['{"a": 1}', "{}"], Metric.JSON_FIELD_F1),
        (['{"a": 1}', "[1]"], Metric.ACCURACY),
        (["spam", "ham"] * 30, Metric.ACCURACY),
        ([f"answer {number}" for number in range(20)], Metric.ACCURACY),
        ([f"answer {number}" for number in range(21)], Metric.TOKEN_F1),
    ],
)
def test_auto_goes_by_the_expected_answers(expected: list[str], metric: Metric) -> None:
    assert resolve(Metric.AUTO, expected) is metric


def test_a_metric_that_was_asked_for_stays() -> None:
    assert resolve(Metric.EXACT_MATCH, ['{"a": 1}']) is Metric.EXACT_MATCH
