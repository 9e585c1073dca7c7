"""Comparisons of answers, also by metrics that are no mean over items: MacroF1 and BLEU.

Those come with the paired bootstrap: the items are drawn 10,000 times with replacement, the same
ones for both sides, and the middle 95% of the differences is the interval. Each item is boiled down
to counts that add up, so that a draw is a weighted sum of counts. The seed is fixed: the same
answers give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.sample_size import RATING_RANGE
from tunesmith.api.verdict import ConfidenceInterval

from tunesmith_trainer.evaluate.measured import Answer, Question
from tunesmith_trainer.evaluate.metrics import bleu_score, class_name
from tunesmith_trainer.evaluate.statistics import (
    POINTS,
    Comparison,
    compare,
    intervals,
    points,
    subject_numbers,
)

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from tunesmith_trainer.evaluate.statistics import Numbers

RESAMPLES = 10_000
SEED = 20_240_601
#: Draws held in memory at a time.
BLOCK_DRAWS = 4_000_000
#: A bootstrap of fewer is too narrow to be of use.
MINIMUM_RESAMPLED = 30


def compare_answers(
    metric: Metric,
    questions: Sequence[Question],
    base: Sequence[Answer],
    adapter: Sequence[Answer],
    confidence: float,
) -> Comparison:
    """Compare what two sides answered to the same questions, as is right for the metric.

    Raises ValueError if answers are missing, or none was rated on both sides.
    """
    rated = rated_on_both_sides(questions, base, adapter)
    groups = [question.group for question, _, _ in rated]
    if metric in CORPUS_METRICS:
        expected = [question.expected for question, _, _ in rated]
        base_texts = [answer.text for _, answer, _ in rated]
        adapter_texts = [answer.text for _, _, answer in rated]
        return compare_corpus(metric, expected, base_texts, adapter_texts, confidence, groups)
    base_scores = [answer.score for _, answer, _ in rated if answer.score is not None]
    adapter_scores = [answer.score for _, _, answer in rated if answer.score is not None]
    scale = RATING_RANGE if metric is Metric.RATING else POINTS
    return compare(base_scores, adapter_scores, groups, confidence, scale)


def rated_on_both_sides(
    questions: Sequence[Question], base: Sequence[Answer], adapter: Sequence[Answer]
) -> list[tuple[Question, Answer, Answer]]:
    """An item that one side has no rating for counts for neither."""
    triples = zip(questions, base, adapter, strict=True)
    return [
        (question, before, after)
        for question, before, after in triples
        if before.score is not None and after.score is not None
    ]


def compare_corpus(
    metric: Metric,
    expected: Sequence[str],
    base_answers: Sequence[str],
    adapter_answers: Sequence[str],
    confidence: float,
    groups: Sequence[str] = (),
) -> Comparison:
    """Compare MacroF1 or BLEU of answers to the same items; ``confidence`` is in percent.

    With ``groups``, whole subjects are drawn instead of items. The interval is -100 to 100 for
    fewer than 30 of them: a bootstrap of so few is too narrow. It is never narrower than that of as
    many tied items (statistics.py), for a bootstrap takes items that all agree for certainty.
    Raises ValueError if the items cannot be paired, or there are none.
    """
    import numpy

    items = len(expected)
    if not items == len(base_answers) == len(adapter_answers) or not items:
        raise ValueError("both sides must have answered the same items, at least one")
    subjects = numpy.asarray(subject_numbers(groups or [""] * items))
    base = CORPUS_METRICS[metric](expected, base_answers)
    adapter = CORPUS_METRICS[metric](expected, adapter_answers)
    everything = numpy.ones((1, items))
    base_value, adapter_value = base.values(everything)[0], adapter.values(everything)[0]
    difference = adapter_value - base_value
    lower, upper = -POINTS, POINTS
    if subjects.max() + 1 >= MINIMUM_RESAMPLED:
        _, tied = intervals(numpy.zeros(items), [""] * items, confidence)
        drawn_lower, drawn_upper = bootstrap(base, adapter, subjects, confidence)
        lower = max(-POINTS, min(drawn_lower, difference - tied))
        upper = min(POINTS, max(drawn_upper, difference + tied))
    return Comparison(
        items=items,
        base=points(base_value),
        adapter=points(adapter_value),
        difference=points(difference),
        interval=ConfidenceInterval(lower=points(lower), upper=points(upper)),
    )


def bootstrap(
    base: Counts, adapter: Counts, subjects: NDArray[numpy.int64], confidence: float
) -> tuple[float, float]:
    """The middle of the differences in points; ``subjects`` has the number of each item's."""
    import numpy

    draws = [adapter.values(each) - base.values(each) for each in weights(subjects)]
    tail = (100 - confidence) / 2
    lower, upper = numpy.percentile(numpy.concatenate(draws), [tail, 100 - tail])
    return float(lower), float(upper)


def weights(subjects: NDArray[numpy.int64]) -> Iterator[Numbers]:
    """How often each item is drawn, in blocks of shape (resamples, items)."""
    import numpy

    generator = numpy.random.default_rng(SEED)
    count = subjects.max() + 1
    rows = max(1, min(RESAMPLES, BLOCK_DRAWS // subjects.size))
    for start in range(0, RESAMPLES, rows):
        block = min(rows, RESAMPLES - start)
        drawn = generator.integers(0, count, (block, count))
        drawn += count * numpy.arange(block)[:, None]
        often = numpy.bincount(drawn.ravel(), minlength=block * count).reshape(block, count)
        yield often[:, subjects].astype(float)


@dataclass(frozen=True)
class Counts:
    """What one side's answers are made of."""

    #: Shape (items, counts); dense or sparse.
    of_items: Any
    #: The metric in points, from sums of counts: shape (resamples, counts) becomes (resamples,).
    value: Callable[[Numbers], Numbers]

    def values(self, weights: Numbers) -> Numbers:
        """The metric of every resample, from weights of shape (resamples, items)."""
        return self.value(weights @ self.of_items)


def macro_f1_counts(expected: Sequence[str], answers: Sequence[str]) -> Counts:
    """Right answers, expected answers and given answers of each class.

    The classes are the expected answers. Any other answer is given for none, and so only makes its
    expected class wrong.
    """
    import numpy
    from scipy.sparse import csr_array, hstack

    wanted = [class_name(text) for text in expected]
    given = [class_name(text) for text in answers]
    numbers = {name: number for number, name in enumerate(sorted(set(wanted)))}

    def indicators(names: Sequence[str], counted: Sequence[bool]) -> Any:
        rows = [item for item, counts in enumerate(counted) if counts]
        columns = [numbers[names[item]] for item in rows]
        shape = (len(names), len(numbers))
        return csr_array((numpy.ones(len(rows)), (rows, columns)), shape=shape)

    right = indicators(wanted, [a == b for a, b in zip(wanted, given, strict=True)])
    asked = indicators(wanted, [True] * len(wanted))
    answered = indicators(given, [name in numbers for name in given])
    return Counts(hstack([right, asked, answered], format="csr"), macro_f1)


def macro_f1(sums: Numbers) -> Numbers:
    """Mean over classes of the harmonic mean of precision and recall: 2 right / (asked + answered).

    A class that a resample neither asks for nor answers has none, and is left out.
    """
    import numpy

    right, asked, answered = numpy.split(sums, 3, axis=-1)
    occurring = asked + answered > 0
    f1 = 2 * right / numpy.where(occurring, asked + answered, 1)
    mean: Numbers = 100 * f1.sum(-1) / occurring.sum(-1)
    return mean


def bleu_counts(expected: Sequence[str], answers: Sequence[str]) -> Counts:
    """Lengths of answer and expected answer, and for n-grams of 1 to 4 words matches and all."""
    import numpy

    scores = [bleu_score(*pair) for pair in zip(expected, answers, strict=True)]
    rows = [[each.sys_len, each.ref_len, *each.counts, *each.totals] for each in scores]
    return Counts(numpy.asarray(rows, dtype=float), corpus_bleu)


def corpus_bleu(sums: Numbers) -> Numbers:
    """Corpus BLEU as sacrebleu computes it, with its default smoothing."""
    import numpy
    from sacrebleu.metrics import BLEU

    return numpy.asarray(
        [
            BLEU.compute_bleu(row[2:6], row[6:], row[0], row[1], smooth_method="exp").score
            for row in sums.astype(int).tolist()
        ]
    )


CORPUS_METRICS: dict[Metric, Callable[[Sequence[str], Sequence[str]], Counts]] = {
    Metric.MACRO_F1: macro_f1_counts,
    Metric.BLEU: bleu_counts,
}
