"""How sure a difference is: the paired bootstrap.

Both sides answered the same items, so whole items are resampled: 10,000 times as many items as
there are, with replacement, and the middle 95% of the mean differences is the interval. The seed is
fixed, so that the same answers give the same interval. If every item has the same difference, the
interval is that one point; with very few items it is too narrow, as every bootstrap's is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.api.evalrun import ConfidenceInterval

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 20_240_601
#: Draws held in memory at a time.
BLOCK_DRAWS = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """Mean scores of both sides in points, and what lies between them."""

    base: float
    adapter: float
    difference: float
    interval: ConfidenceInterval


def compare(base: Sequence[float], adapter: Sequence[float]) -> Comparison:
    """Compare scores of the same items, in the same order."""
    import numpy

    base_scores = numpy.asarray(base, dtype=float)
    adapter_scores = numpy.asarray(adapter, dtype=float)
    if base_scores.shape != adapter_scores.shape or base_scores.size == 0:
        raise ValueError("both sides must have answered the same items, at least one")
    differences = adapter_scores - base_scores
    items = differences.size

    generator = numpy.random.default_rng(SEED)
    rows = max(1, min(RESAMPLES, BLOCK_DRAWS // items))
    means = numpy.concatenate(
        [
            differences[generator.integers(0, items, (min(rows, RESAMPLES - start), items))].mean(1)
            for start in range(0, RESAMPLES, rows)
        ]
    )
    tail = 50 * (1 - CONFIDENCE)
    lower, upper = numpy.percentile(means, [tail, 100 - tail])
    return Comparison(
        base=points(base_scores.mean()),
        adapter=points(adapter_scores.mean()),
        difference=points(differences.mean()),
        interval=ConfidenceInterval(lower=points(lower), upper=points(upper)),
    )


def points(value: float) -> float:
    """Two decimals; a plain float, for numpy's do not go into JSON."""
    return round(float(value), 2)
