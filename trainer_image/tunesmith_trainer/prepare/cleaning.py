"""What is dropped from the training side, and why. Pure: rows in, rows and counts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.api.dataset import NearDuplicates

from tunesmith_trainer.data.contamination import Contamination, contaminated_rows
from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.data.near_duplicates import near_duplicate_rows


@dataclass(frozen=True)
class Cleaned:
    """The training side without near-duplicates and leaks, in the order of the rows' digests."""

    train: list[Conversation]
    near_duplicates: list[Conversation]
    contaminated: list[Conversation]
    #: One for each contaminated row, in the same order.
    contamination: list[Contamination]


def clean(
    train: Sequence[Conversation],
    evaluation: Mapping[str, Sequence[Conversation]],
    near_duplicates: NearDuplicates,
) -> Cleaned:
    """Drop near-duplicates first: what is left many times over would pass for boilerplate.

    ``train`` has no exact duplicates. ``evaluation``: the sets, by name, that no training row may
    share text with; they are only read.
    """
    rows = sorted(train, key=Conversation.digest)
    similarity = near_duplicates.similarity
    repeated = near_duplicate_rows(rows, similarity) if near_duplicates.enabled else []
    distinct = without(rows, repeated)
    leaks = contaminated_rows(distinct, evaluation)
    return Cleaned(
        train=without(distinct, [leak.row for leak in leaks]),
        near_duplicates=[rows[row] for row in repeated],
        contaminated=[distinct[leak.row] for leak in leaks],
        contamination=leaks,
    )


def without(rows: Sequence[Conversation], dropped: Sequence[int]) -> list[Conversation]:
    gone = set(dropped)
    return [row for number, row in enumerate(rows) if number not in gone]
