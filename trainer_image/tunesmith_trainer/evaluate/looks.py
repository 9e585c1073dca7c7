"""How often an evaluation may look at its figures, and how sure it must be each time. Pure.

Whoever asks more items until the verdict pleases would be wrong more often than the interval says.
So the looks are planned beforehand, and share the error among them.
"""

from __future__ import annotations

#: Chance in percent that an interval misses the true difference, over all looks together.
ERROR_PERCENT = 5.0


def schedule(first: int, available: int, extend: bool) -> list[int]:
    """After how many items the figures are looked at: twice as many each time, all in the end.

    Without ``extend`` there is one look. Raises ValueError without items.
    """
    if first < 1 or available < 1:
        raise ValueError("there is nothing to look at without items")
    looks = [min(first, available)]
    while extend and looks[-1] < available:
        looks.append(min(2 * looks[-1], available))
    return looks


def confidence(looks: int) -> float:
    """Confidence of the interval at each of so many looks, in percent: 95 for a single one.

    Every look has an equal share of the error (Bonferroni's inequality), so that it holds however
    the looks depend on each other. Raises ValueError without looks.
    """
    if looks < 1:
        raise ValueError("there is no confidence without a look")
    return 100.0 - ERROR_PERCENT / looks
