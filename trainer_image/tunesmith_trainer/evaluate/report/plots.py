"""The scale of a plot: from points to places on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: Room for half a label at both ends.
MARGIN = 24
#: A scale is never narrower than this many points to both sides of zero.
LEAST_REACH = 1.0
MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """A horizontal scale from ``low`` to ``high`` points over ``width`` pixels."""

    low: float
    high: float
    width: int

    @classmethod
    def over(cls, values: Iterable[float], width: int) -> Axis:
        """A scale that shows all the values, and zero."""
        shown = [-LEAST_REACH, LEAST_REACH, *values]
        return cls(min(shown), max(shown), width)

    def place(self, value: float) -> float:
        """Where the value lies, in pixels from the left."""
        share = (value - self.low) / (self.high - self.low)
        return round(MARGIN + share * (self.width - 2 * MARGIN), 1)

    @property
    def ticks(self) -> list[float]:
        """Round numbers on the scale: multiples of 1, 2 or 5 times a power of ten, with zero."""
        least_step = (self.high - self.low) / MOST_TICKS
        power = 10.0 ** math.floor(math.log10(least_step))
        step = next(power * each for each in (1, 2, 5, 10) if power * each >= least_step)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(number * step, 6) for number in range(first, last + 1)]
