"""A dataset file, read and checked as a whole."""

from __future__ import annotations

from pathlib import Path

from tunesmith.api.objects import DatasetFormat
from tunesmith.api.trainer_contract import PlannedDataset, Reason

from tunesmith_trainer.data.formats import Conversation, conversation_from, format_of, rows_digest
from tunesmith_trainer.data.rows import read_rows
from tunesmith_trainer.failure import TrainerError

#: Fewer distinct rows cannot be split into something to learn from and something to judge by.
MINIMUM_DISTINCT_ROWS = 10
#: All are in memory, and looked through for near-duplicates.
MOST_ROWS = 5_000_000


def read_dataset(path: Path, dataset: PlannedDataset) -> list[Conversation]:
    """Every row in canonical form. Raises TrainerError for the first row that is not right."""
    expected = dataset.format
    conversations = []
    for row in read_rows(path):
        if expected is DatasetFormat.AUTO:
            expected = format_of(row)
        conversations.append(conversation_from(row, expected))
        if len(conversations) > MOST_ROWS:
            raise row.complaint(
                f"more than {MOST_ROWS:,} rows, and 1,000 to 5,000 are usual for a task: take a "
                "sample of them"
            )
    if not conversations:
        raise TrainerError(
            Reason.DATASET_EMPTY, f"{dataset.uri} has no rows: write one JSON object per line"
        )
    if dataset.digest not in {None, rows_digest(conversations)}:
        raise TrainerError(
            Reason.DATASET_CHANGED,
            f"{dataset.uri} no longer holds the rows with digest {dataset.digest}: restore the "
            "file, or start a new run on the new rows",
        )
    return conversations


def require_enough(conversations: list[Conversation], dataset: PlannedDataset) -> None:
    distinct = len(set(conversations))
    if distinct < MINIMUM_DISTINCT_ROWS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL,
            f"{dataset.uri} has {distinct} different rows: at least {MINIMUM_DISTINCT_ROWS} are "
            "needed, and 1,000 to 5,000 are usual for a task",
        )
