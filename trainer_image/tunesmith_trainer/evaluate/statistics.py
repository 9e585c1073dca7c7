"""How sure a difference is: an interval around the mean difference of paired items.

Both sides answered the same items, so only the differences matter. An honest interval has to
survive three things, and the wider of two t intervals does:

Few items and ties. Items that all agree have no variance, and yet the next one may differ. Two
pseudo-items are added, one with the largest rise and one with the largest fall; centre and variance
are those of the sample with them, and the quantile has the degrees of freedom of the sample without
(adjusted Wald interval of Bonett and Price, J. Educ. Behav. Stat. 37(4), 2012, written for scores
that are right or wrong; for scores in between it is on the wide side).

Subjects. Items of one subject rise and fall together. The variance of the mean is then that of the
subjects' sums (cluster-robust, arXiv:2411.00640), times C / (C - 1) for C subjects, with C - 1
degrees of freedom: few subjects make a wide interval, however many items they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.api.evalrun import GroupDifference
from tunesmith.api.verdict import ConfidenceInterval

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.float64]

#: Range of one item's score in points.
POINTS = 100.0
#: Longest name of a subject in a status.
NAME_LENGTH = 128


@dataclass(frozen=True)
class Comparison:
    """Scores of both sides in points, and what lies between them. Two decimals."""

    #: How many items both sides answered.
    items: int
    base: float
    adapter: float
    difference: float
    interval: ConfidenceInterval


def compare(
    base: Sequence[float],
    adapter: Sequence[float],
    groups: Sequence[str],
    confidence: float,
    scale: float = POINTS,
) -> Comparison:
    """Compare mean scores of the same items, in the same order.

    ``groups`` has the subject of each item, empty for an item that stands alone. ``confidence`` is
    in percent. ``scale`` is the largest possible difference of one item: 100 points, or 9 for
    ratings from 1 to 10. Raises ValueError if the items cannot be paired, or there are none.
    """
    import numpy

    if not len(base) == len(adapter) == len(groups) or not len(base):
        raise ValueError("both sides must have answered the same items, at least one")
    base_scores = numpy.asarray(base, dtype=float)
    adapter_scores = numpy.asarray(adapter, dtype=float)
    differences = adapter_scores - base_scores
    lower, upper = intervals(differences, groups, confidence, scale)
    return Comparison(
        items=len(base),
        base=points(base_scores.mean()),
        adapter=points(adapter_scores.mean()),
        difference=points(differences.mean()),
        interval=ConfidenceInterval(lower=points(lower), upper=points(upper)),
    )


def intervals(
    differences: Numbers, groups: Sequence[str], confidence: float, scale: float = POINTS
) -> tuple[Numbers, Numbers]:
    """Lower and upper ends, one for each sample of paired differences of shape (..., items)."""
    import numpy
    from scipy.stats import t

    items = differences.shape[-1]
    if items < 2:
        whole = numpy.full(differences.shape[:-1], scale)
        return -whole, whole
    level = 0.5 + confidence / 200

    # With the two pseudo-items, +scale and -scale.
    centre = differences.sum(-1) / (items + 2)
    squares = (differences**2).sum(-1) + 2 * scale**2
    variance = squares / (items + 2) - centre**2
    alone = t.ppf(level, items - 1) * numpy.sqrt(variance / (items + 2))

    sums = subject_sums(differences - differences.mean(-1, keepdims=True), groups)
    subjects = sums.shape[-1]
    variance = subjects / (subjects - 1) * (sums**2).sum(-1) / items**2
    together = t.ppf(level, subjects - 1) * numpy.sqrt(variance)

    # Not the larger standard error: of two or three subjects it is small by chance too often.
    half = numpy.maximum(alone, together)
    return numpy.clip(centre - half, -scale, scale), numpy.clip(centre + half, -scale, scale)


def subject_sums(values: Numbers, groups: Sequence[str]) -> Numbers:
    """Sums over the items of each subject: shape (..., items) becomes (..., subjects)."""
    import numpy

    subjects = numpy.asarray(subject_numbers(groups))
    order = numpy.argsort(subjects, kind="stable")
    starts = numpy.flatnonzero(numpy.diff(subjects[order], prepend=-1))
    return numpy.add.reduceat(values[..., order], starts, axis=-1)


def subject_numbers(groups: Sequence[str]) -> list[int]:
    """Which subject each item belongs to, counted from 0. An item without one is its own.

    If all items have the same subject, it is all that the verdict is about, and each stands alone.
    """
    numbers: dict[str | int, int] = {}
    found = [numbers.setdefault(group or item, len(numbers)) for item, group in enumerate(groups)]
    return found if len(numbers) > 1 else list(range(len(groups)))


def group_differences(
    base: Sequence[float], adapter: Sequence[float], groups: Sequence[str]
) -> list[GroupDifference]:
    """The mean difference of every subject in points, those that fell most first."""
    by_name: dict[str, list[float]] = {}
    for before, after, name in zip(base, adapter, groups, strict=True):
        if name:
            by_name.setdefault(name[:NAME_LENGTH], []).append(after - before)
    found = [
        GroupDifference(
            name=name,
            items=len(differences),
            difference=points(sum(differences) / len(differences)),
        )
        for name, differences in by_name.items()
    ]
    return sorted(found, key=lambda group: (group.difference, group.name))


def points(value: float | Numbers) -> float:
    """Two decimals; a plain float, for numpy's do not go into JSON."""
    return round(float(value), 2)
