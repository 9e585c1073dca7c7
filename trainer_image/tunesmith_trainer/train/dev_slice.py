"""The examples by which the best epoch is chosen: a few of the training side, never held-out ones.

Choosing by the held-out examples would make the evaluation on them optimistic: the best of several
epochs is the best on those examples by luck, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith_trainer.data.formats import Conversation, rows_digest
from tunesmith_trainer.data.split import salted

FRACTION = 0.05
MOST = 200
#: With fewer rows, each one taken away from training is missed.
ROWS_FOR_A_SLICE = 20
SALT = "dev"


@dataclass(frozen=True)
class DevSlice:
    """A training side in two parts."""

    train: list[Conversation]
    dev: list[Conversation]

    @property
    def digest(self) -> str:
        return rows_digest(self.dev)


def dev_slice(train: Sequence[Conversation], seed: int) -> DevSlice:
    """Set examples aside by the hash of seed and content: the same in every order of the rows.

    5% of them and at most 200; none of fewer than 20 rows.
    """
    count = min(MOST, max(1, round(FRACTION * len(train)))) if len(train) >= ROWS_FOR_A_SLICE else 0
    ranked = sorted(train, key=lambda each: salted(f"{SALT}:{each.digest()}", seed))
    chosen = set(ranked[:count])
    return DevSlice(
        train=[each for each in train if each not in chosen],
        dev=[each for each in train if each in chosen],
    )
