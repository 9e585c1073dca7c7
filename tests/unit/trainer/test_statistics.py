"""The interval around a difference: of means, and of figures of all answers together."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from tunesmith.api.evalrun import GroupDifference
from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.verdict import Verdict, judge

numpy = pytest.importorskip("numpy")
sacrebleu = pytest.importorskip("sacrebleu")
pytest.importorskip("scipy")

from tunesmith_trainer.evaluate import corpus  # noqa: E402
from tunesmith_trainer.evaluate.corpus import compare_answers, compare_corpus  # noqa: E402
from tunesmith_trainer.evaluate.measured import Answer, Question  # noqa: E402
from tunesmith_trainer.evaluate.statistics import (  # noqa: E402
    Comparison,
    compare,
    group_differences,
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dogs", "run"]


def alone(base: list[float], adapter: list[float], confidence: float = 95.0) -> Comparison:
    return compare(base, adapter, [""] * len(base), confidence)


def width(comparison: Comparison) -> float:
    return comparison.interval.upper - comparison.interval.lower


def test_the_interval_is_that_of_bonett_and_price_for_right_and_wrong() -> None:
    """400 items, 30 of which fall and 12 rise: (f + 1) / (n + 2) of each, worked out by hand."""
    base = [100.0] * 30 + [0.0] * 12 + [100.0] * 358
    adapter = [0.0] * 30 + [100.0] * 12 + [100.0] * 358
    interval = alone(base, adapter).interval
    # Centre (13 - 31) / 402 = -4.478, standard error 1.635, quantile of 399 degrees 1.966.
    assert interval.lower == pytest.approx(-7.69, abs=0.01)
    assert interval.upper == pytest.approx(-1.26, abs=0.01)


def test_many_items_agree_with_the_normal_approximation() -> None:
    generator = numpy.random.default_rng(0)
    differences = generator.normal(5, 30, 10_000)
    comparison = alone([0] * 10_000, differences)
    assert comparison.difference == round(differences.mean(), 2)
    assert comparison.interval.lower == pytest.approx(differences.mean() - 0.588, abs=0.03)
    assert comparison.interval.upper == pytest.approx(differences.mean() + 0.588, abs=0.03)


@pytest.mark.parametrize("items", [1, 2, 10, 40])
def test_a_few_ties_prove_nothing(items: int) -> None:
    comparison = alone([100.0] * items, [100.0] * items)
    assert comparison.difference == 0
    assert judge(-3, comparison.interval) is Verdict.INCONCLUSIVE


def test_many_ties_prove_that_nothing_fell() -> None:
    assert judge(-3, alone([100.0] * 300, [100.0] * 300).interval) is Verdict.PASSED


def test_items_that_all_fell_are_no_point_either() -> None:
    comparison = alone([100.0] * 10, [0.0] * 10)
    assert comparison.interval.lower == -100
    assert comparison.interval.upper > -90


def test_pairing_makes_the_interval_narrow() -> None:
    """Both sides find the same items hard: that must not widen the difference."""
    base = [0.0, 100.0] * 50
    paired = alone(base, [score + 1 for score in base])
    crossed = alone(base, base[1:] + base[:1])
    assert width(paired) < width(crossed) / 5


def test_more_confidence_is_a_wider_interval() -> None:
    base, adapter = [0.0, 100.0] * 50, [100.0, 100.0] * 50
    assert width(alone(base, adapter, 99.0)) > width(alone(base, adapter, 95.0))


def test_ratings_have_a_range_of_their_own() -> None:
    base, adapter = [7.0] * 80, [6.0, 7.0, 8.0, 7.0] * 20
    interval = compare(base, adapter, [""] * 80, 95.0, scale=9.0).interval
    assert 0.2 < interval.upper < 0.5
    assert compare([7.0], [7.0], [""], 95.0, scale=9.0).interval.upper == 9


def test_items_that_fall_by_subjects_are_less_evidence() -> None:
    base = [100.0] * 200
    adapter = [0.0] * 10 + [100.0] * 190
    in_one_subject = [f"subject {item // 10}" for item in range(200)]
    spread = [f"subject {item % 20}" for item in range(200)]
    assert width(compare(base, adapter, in_one_subject, 95.0)) > 1.5 * width(alone(base, adapter))
    assert width(compare(base, adapter, spread, 95.0)) == width(alone(base, adapter))


def test_two_subjects_say_little_however_many_items_they_have() -> None:
    base = [100.0] * 1000
    adapter = [100.0] * 500 + [0.0] * 40 + [100.0] * 460
    interval = compare(base, adapter, ["law"] * 500 + ["physics"] * 500, 95.0).interval
    assert interval.lower < -20


def test_a_single_subject_is_all_that_is_asked_about() -> None:
    base, adapter = [0.0, 100.0] * 50, [100.0, 100.0] * 50
    assert compare(base, adapter, ["law"] * 100, 95.0) == alone(base, adapter)


def test_the_order_of_the_items_does_not_matter() -> None:
    generator = numpy.random.default_rng(2)
    base, adapter = generator.integers(0, 2, (2, 90)) * 100.0
    groups = numpy.array(["a", "b", "", "c", "c", ""] * 15)
    order = generator.permutation(90)
    shuffled = compare(base[order], adapter[order], groups[order].tolist(), 95.0)
    assert shuffled == compare(base, adapter, groups.tolist(), 95.0)


def test_numbers_are_plain() -> None:
    comparison = alone(list(numpy.zeros(97)), list(numpy.arange(97.0)))
    assert json.loads(json.dumps(comparison.base)) == 0
    assert comparison.items == 97


@pytest.mark.parametrize(
    ("base", "adapter", "groups"), [([], [], []), ([1], [1, 2], [""]), ([1], [1], ["", ""])]
)
def test_sides_that_cannot_be_paired_are_an_error(
    base: list[float], adapter: list[float], groups: list[str]
) -> None:
    with pytest.raises(ValueError, match="the same items"):
        compare(base, adapter, groups, 95.0)


def test_the_subject_that_fell_most_comes_first() -> None:
    groups = ["law", "physics", "", "law", "physics", "art"]
    found = group_differences([100, 0, 0, 100, 0, 50], [0, 100, 0, 100, 100, 50], groups)
    assert found == [
        GroupDifference(name="law", items=2, difference=-50),
        GroupDifference(name="art", items=1, difference=0),
        GroupDifference(name="physics", items=2, difference=100),
    ]


def texts(items: int, seed: int) -> list[str]:
    generator = numpy.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(0, 12))) for _ in range(items)]


def macro_f1(expected: Sequence[str], answers: Sequence[str]) -> float:
    return compare_corpus(Metric.MACRO_F1, expected, answers, answers, 95.0).base


def test_macro_f1_is_the_mean_over_classes() -> None:
    # spam: precision 1/2, recall 1/2. ham: precision 2/3, recall 2/3.
    expected = ["spam", "spam", "ham", "ham", "ham"]
    answers = ["Spam", " ham", "ham", "HAM", "spam"]
    assert macro_f1(expected, answers) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2, abs=0.01)


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    expected = ["ham"] * 98 + ["spam"] * 2
    assert macro_f1(expected, ["ham"] * 100) == pytest.approx(100 * (196 / 198) / 2, abs=0.01)


def test_an_answer_outside_the_classes_only_misses_its_own() -> None:
    # spam: recall 1/2 with perfect precision. ham is perfect.
    answers = ["spam", "Sure, this is spam!", "ham", ""]
    assert macro_f1(["spam", "spam", "ham"], answers[:3]) == pytest.approx(83.33, abs=0.01)
    assert macro_f1(["spam", "spam", "ham", "ham"], answers) == pytest.approx(66.67, abs=0.01)


def test_bleu_is_that_of_sacrebleu() -> None:
    expected, base, adapter = texts(50, 0), texts(50, 1), texts(50, 0)[:40] + texts(10, 2)
    comparison = compare_corpus(Metric.BLEU, expected, base, adapter, 95.0)
    for found, answers in ((comparison.base, base), (comparison.adapter, adapter)):
        assert found == round(sacrebleu.corpus_bleu(answers, [expected]).score, 2)
    assert comparison.difference == pytest.approx(comparison.adapter - comparison.base, abs=0.011)


@pytest.mark.parametrize("metric", [Metric.MACRO_F1, Metric.BLEU])
def test_empty_answers_are_worth_nothing(metric: Metric) -> None:
    comparison = compare_corpus(metric, ["spam", "ham"] * 20, [""] * 40, [""] * 40, 95.0)
    assert (comparison.base, comparison.adapter, comparison.difference) == (0, 0, 0)


@pytest.mark.parametrize("metric", [Metric.MACRO_F1, Metric.BLEU])
def test_fewer_than_30_items_prove_nothing(metric: Metric) -> None:
    expected = ["spam", "ham"] * 15
    few = compare_corpus(metric, expected[:29], expected[:29], expected[:29], 95.0)
    assert (few.interval.lower, few.interval.upper) == (-100, 100)
    assert width(compare_corpus(metric, expected, expected, expected, 95.0)) < 50


@pytest.mark.parametrize("metric", [Metric.MACRO_F1, Metric.BLEU])
def test_ties_are_no_certainty(metric: Metric) -> None:
    expected = ["a cat sat on the mat", "dogs run on a mat"] * 20
    assert (
        judge(-3, compare_corpus(metric, expected, expected, expected, 95.0).interval)
        is Verdict.INCONCLUSIVE
    )


def binary(items: int, right_percent: float, seed: int) -> tuple[list[str], list[str]]:
    generator = numpy.random.default_rng(seed)
    expected = generator.choice(["spam", "ham"], items)
    right = generator.random(items) < right_percent / 100
    other = numpy.where(expected == "spam", "ham", "spam")
    return expected.tolist(), numpy.where(right, expected, other).tolist()


def test_of_balanced_classes_macro_f1_is_as_sure_as_accuracy() -> None:
    expected, answers = binary(1000, 80, seed=3)
    questions = [Question("", text) for text in expected]
    base = [Answer(text, 100.0) for text in expected]
    pairs = zip(expected, answers, strict=True)
    adapter = [Answer(given, 100.0 * (given == text)) for text, given in pairs]
    by_class = compare_answers(Metric.MACRO_F1, questions, base, adapter, 95.0)
    by_item = compare_answers(Metric.ACCURACY, questions, base, adapter, 95.0)
    assert by_class.difference == pytest.approx(by_item.difference, abs=0.5)
    assert width(by_class) == pytest.approx(width(by_item), rel=0.05)


def test_both_sides_are_drawn_together() -> None:
    expected, answers = binary(400, 60, seed=4)
    better = expected[:20] + answers[20:]
    paired = compare_corpus(Metric.MACRO_F1, expected, answers, better, 95.0)
    assert width(paired) < 5


def test_subjects_are_drawn_whole() -> None:
    expected, answers = binary(800, 70, seed=5)
    wrong = ["ham" if text == "spam" else "spam" for text in expected]
    adapter = wrong[:100] + answers[100:]
    named = [f"subject {item // 20}" for item in range(800)]
    alone = compare_corpus(Metric.MACRO_F1, expected, answers, adapter, 95.0)
    together = compare_corpus(Metric.MACRO_F1, expected, answers, adapter, 95.0, named)
    assert width(together) > 1.5 * width(alone)


def test_small_blocks_draw_what_is_right_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, answers = binary(60, 70, seed=6)
    whole = compare_corpus(Metric.MACRO_F1, expected, answers, expected, 95.0)
    assert whole == compare_corpus(Metric.MACRO_F1, expected, answers, expected, 95.0)
    monkeypatch.setattr(corpus, "BLOCK_DRAWS", 60 * 999)
    in_blocks = compare_corpus(Metric.MACRO_F1, expected, answers, expected, 95.0)
    assert in_blocks.interval.lower == pytest.approx(whole.interval.lower, abs=0.5)
    assert in_blocks.interval.upper == pytest.approx(whole.interval.upper, abs=0.5)


def test_an_item_without_a_rating_counts_for_neither_side() -> None:
    questions = [Question("", "", group) for group in ("writing", "maths", "writing")]
    base = [Answer("", 8.0), Answer("", None), Answer("", 6.0)]
    adapter = [Answer("", 9.0), Answer("", 1.0), Answer("", 6.0)]
    comparison = compare_answers(Metric.RATING, questions, base, adapter, 95.0)
    assert (comparison.items, comparison.base, comparison.adapter) == (2, 7, 7.5)
    assert (comparison.interval.lower, comparison.interval.upper) == (-9, 9)


@pytest.mark.parametrize("metric", [Metric.MACRO_F1, Metric.ACCURACY])
def test_nothing_rated_cannot_be_compared(metric: Metric) -> None:
    with pytest.raises(ValueError, match="the same items"):
        compare_answers(metric, [Question("", "")], [Answer("", None)], [Answer("", 1.0)], 95.0)
