"""What is told of a suite, from the answers of its sides."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tunesmith.api.evalrun import GroupDifference, SuiteResult
from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.sample_size import RATING_RANGE, detectable_points, detectable_rating
from tunesmith.api.verdict import ConfidenceInterval, Verdict, judge

from tunesmith_trainer.evaluate.corpus import compare_answers, rated_on_both_sides
from tunesmith_trainer.evaluate.measured import Measured, Side
from tunesmith_trainer.evaluate.statistics import Comparison, group_differences

log = logging.getLogger(__name__)

#: Subjects that status names; the report has them all.
FALLEN = 3


def in_doubt(result: SuiteResult, bounds: Sequence[float]) -> bool:
    """Whether some gate that may ask for more items does not know yet."""
    interval = result.confidence_interval
    return interval is not None and any(
        judge(bound, interval) is Verdict.INCONCLUSIVE for bound in bounds
    )


def suite_result(measured: Measured, confidence: float) -> SuiteResult:
    """What status says of a suite.

    The adapter has to beat the base model as it is and under its best prompt. The smaller
    difference is told, and an interval of the lower of both lower ends and the lower of both upper
    ends: it lies above a bound if both do, and below it if one does.
    """
    answers = measured.answers
    candidate = answers.get(Side.ADAPTER, answers[Side.BASE])
    if not rated_on_both_sides(measured.questions, answers[Side.BASE], candidate):
        return unrated(measured, confidence)
    compared = {
        side: compare_answers(
            measured.metric, measured.questions, answers[side], candidate, confidence
        )
        for side in (Side.BASE, Side.PROMPTED_BASE)
        if side in answers
    }
    hardest, comparison = min(compared.items(), key=lambda each: each[1].difference)
    prompted = compared.get(Side.PROMPTED_BASE)
    result = SuiteResult(
        suite=measured.name,
        metric=measured.metric,
        items=comparison.items,
        base=compared[Side.BASE].base,
        prompted_base=prompted.base if prompted else None,
        confidence=confidence,
        detectable=detectable(measured.metric, comparison.items),
        approximate=measured.approximate,
        failed_percent=measured.failed_percent,
        win_percent=measured.win_percent,
        asked=measured.asked,
    )
    if Side.ADAPTER not in answers:
        return result
    log_comparison(measured, comparison)
    return result.model_copy(
        update={
            "adapter": comparison.adapter,
            "difference": comparison.difference,
            "confidence_interval": ConfidenceInterval(
                lower=min(each.interval.lower for each in compared.values()),
                upper=min(each.interval.upper for each in compared.values()),
            ),
            "fallen": fallen(measured, hardest),
        }
    )


def unrated(measured: Measured, confidence: float) -> SuiteResult:
    """No item was rated on both sides: there is nothing to compare, and the gate stays in doubt."""
    return SuiteResult(
        suite=measured.name,
        metric=measured.metric,
        items=0,
        base=0,
        confidence=confidence,
        detectable=RATING_RANGE,
        failed_percent=measured.failed_percent,
        asked=measured.asked,
    )


def detectable(metric: Metric, items: int) -> float:
    return detectable_rating(items) if metric is Metric.RATING else detectable_points(items)


def fallen(measured: Measured, base: Side) -> list[GroupDifference]:
    """The subjects that fell most, if any fell."""
    rated = rated_on_both_sides(
        measured.questions, measured.answers[base], measured.answers[Side.ADAPTER]
    )
    groups = group_differences(
        [float(before.score or 0) for _, before, _ in rated],
        [float(after.score or 0) for _, _, after in rated],
        [question.group for question, _, _ in rated],
    )
    return [each for each in groups if each.difference < 0][:FALLEN]


def log_comparison(measured: Measured, comparison: Comparison) -> None:
    log.info(
        "%s: base %.1f, adapter %.1f, difference %+.1f [%+.1f, %+.1f] on %d items",
        measured.name,
        comparison.base,
        comparison.adapter,
        comparison.difference,
        comparison.interval.lower,
        comparison.interval.upper,
        comparison.items,
    )
