"""The loss on held-out examples from epoch to epoch. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: A smaller change than this share is chance.
CHANGE = 0.01


@dataclass(frozen=True)
class LossCurve:
    """Losses after the first, second, ... epoch; empty when nobody reported them."""

    losses: list[float]

    @property
    def best_epoch(self) -> int:
        """From 1. Raises ValueError without losses."""
        return self.losses.index(min(self.losses)) + 1

    @property
    def rose_again(self) -> bool:
        return bool(self.losses) and self.losses[-1] > (1 + CHANGE) * min(self.losses)

    @property
    def still_falls(self) -> bool:
        """Whether the last epoch still helped; one epoch alone does not tell."""
        return len(self.losses) > 1 and self.losses[-1] < (1 - CHANGE) * min(self.losses[:-1])
