"""Points for answers."""

from __future__ import annotations

import pytest
from tunesmith.api.evaluation_suite import Metric
from tunesmith_trainer.evaluate.metrics import SCORERS, resolve, score


@pytest.mark.parametrize(
    ("metric", "expected", "answer", "points"),
    [
        (Metric.EXACT_MATCH, "yes", " yes\n", 100),
        (Metric.EXACT_MATCH, "yes", "Yes", 0),
        (Metric.ACCURACY, "Not  Spam", "not spam ", 100),
        (Metric.ACCURACY, "spam", "not spam", 0),
        (Metric.MACRO_F1, "Not  Spam", "not spam ", 100),
        (Metric.MACRO_F1, "spam", "", 0),
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


@pytest.fixture
def libraries() -> None:
    for name in ("rouge_score", "sacrebleu"):
        pytest.importorskip(name)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("metric", "expected", "answer", "points"),
    [
        (Metric.ROUGE_L, "the cat sat on the mat", "The cat sat on the mat.", 100),
        # One word in order, of four and three: 2 * 1 / (4 + 3). Two: 2 * 2 / (4 + 3).
        (Metric.ROUGE_L, "a b c d", "d a x", 200 / 7),
        (Metric.ROUGE_L, "a b c d", "b x d", 400 / 7),
        (Metric.ROUGE_L, "ein größerer Hund", "ein Hund", 80),
        (Metric.ROUGE_L, "안녕 세계", "안녕, 세계!", 100),
        (Metric.ROUGE_L, "a b", "", 0),
        (Metric.BLEU, "the cat sat on the mat", "the cat sat on the mat", 100),
        (Metric.BLEU, "a cat", "a cat", 100),
        (Metric.BLEU, "a cat", "", 0),
        (Metric.BLEU, "a cat", "two dogs", 0),
    ],
)
def test_points_of_texts(metric: Metric, expected: str, answer: str, points: float) -> None:
    assert score(metric, expected, answer) == pytest.approx(points)
    assert score(metric, expected, answer) <= 100


@pytest.mark.usefixtures("libraries")
def test_rouge_is_the_librarys_on_english() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    wanted = "It's 7 o'clock; the well-known cat_2 doesn't sit on e.g. the mat."
    given = "The cat_2 (well known) sat at 7 on a mat - it does not."
    known = RougeScorer(["rougeL"]).score(wanted, given)["rougeL"].fmeasure
    assert 0 < known < 1
    assert score(Metric.ROUGE_L, wanted, given) == pytest.approx(100 * known)


def test_every_metric_of_a_dataset_has_a_score_for_an_answer() -> None:
    assert set(SCORERS) == set(Metric) - {Metric.AUTO, Metric.RATING}


def test_a_metric_that_was_asked_for_stays() -> None:
    assert resolve(Metric.EXACT_MATCH, ['{"a": 1}']) is Metric.EXACT_MATCH


def test_a_number_that_no_float_holds_is_compared_as_it_is() -> None:
    long = "1" * 400
    assert score(Metric.JSON_FIELD_F1, f'{{"a": {long}}}', f'{{"a": {long}}}') == 100
    assert score(Metric.JSON_FIELD_F1, '{"a": 1}', f'{{"a": {long}}}') == 0
