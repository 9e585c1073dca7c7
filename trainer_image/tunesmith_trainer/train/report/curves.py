"""Curves as inline SVG: numbers turned into pixels, without a library on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

#: More points than pixels only make a page large.
MOST_POINTS = 800
WIDTH = 860
HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 28


@dataclass(frozen=True)
class Curve:
    """One line; ``kind`` is its class in the style sheet."""

    name: str
    points: Sequence[Point]
    kind: str
    dots: bool = False


@dataclass(frozen=True)
class Frame:
    """Curves over steps with one scale for all of them."""

    curves: Sequence[Curve]
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    height: int
    width: int = WIDTH

    @classmethod
    def around(cls, curves: Sequence[Curve], height: int = HEIGHT) -> Frame:
        drawn = [each for each in curves if each.points]
        values = [point for each in drawn for point in each.points] or [(0.0, 0.0), (1.0, 1.0)]
        return cls(
            drawn,
            ticks_over([x for x, _ in values], 8),
            ticks_over([y for _, y in values], 5),
            height,
        )

    def x(self, step: float) -> float:
        return round(LEFT + share(self.x_ticks, step) * (self.width - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(TOP + (1 - share(self.y_ticks, value)) * (self.height - TOP - BOTTOM), 1)

    def path(self, curve: Curve) -> str:
        """The ``points`` of a polyline."""
        return " ".join(f"{self.x(step)},{self.y(value)}" for step, value in curve.points)


def ticks_over(values: Sequence[float], most: int) -> list[float]:
    """Round numbers around all the values: multiples of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    least = max(high - low, abs(high) * 1e-6, 1e-12) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= least)
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def share(ticks: Sequence[float], value: float) -> float:
    """Where a value lies between the first and the last tick, from 0 to 1."""
    first, last = ticks[0], ticks[-1]
    return (value - first) / (last - first) if last > first else 0.5


def thinned(points: Sequence[Point]) -> list[Point]:
    """Every n-th point, and always the last one."""
    every = -(-len(points) // MOST_POINTS) or 1
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def smoothed(points: Sequence[Point], weight: float = 0.9) -> list[Point]:
    """Exponential moving mean without the pull of its start (Adam's correction)."""
    mean, found = 0.0, []
    for count, (step, value) in enumerate(points, start=1):
        mean = weight * mean + (1 - weight) * value
        found.append((step, mean / (1 - weight**count)))
    return found
