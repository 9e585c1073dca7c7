"""Parquet files, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.rows import Row, checked
from tunesmith_trainer.failure import TrainerError, first_line
from tunesmith_trainer.machine import at_most

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

ROWS_AT_ONCE = 64
#: A group of rows is unpacked column by column.
LARGEST_GROUP_BYTES = 2 * 1024**3
#: A file of some hundred bytes can hold one value a million times, and say nothing of its size.
MOST_MEMORY_BYTES = LARGEST_GROUP_BYTES
#: Columns that some format has; others, such as images, are not even read.
COLUMNS = frozenset(
    {
        *("messages", "conversations", "system", "instruction", "input", "output"),
        *("prompt", "completion", "question", "choices", "answer", "subject"),
        *("question_id", "category", "turns", "reference"),
    }
)


def read_parquet(path: Path) -> Iterator[Row]:
    """A row for each row, numbered from 1."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            require_small_groups(file, path.name)
            names = file.schema_arrow.names
            columns = [name for name in names if name in COLUMNS] or names
            batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
            number = 0
            while rows := next_rows(batches):
                for fields in rows:
                    number += 1
                    yield checked(path.name, number, fields, "row")
    except MemoryError as error:
        raise TrainerError(
            Reason.DATASET_MALFORMED,
            f"{path.name} unpacks to rows of more than {MOST_MEMORY_BYTES / 1e9:.1f} GB for "
            f"{ROWS_AT_ONCE} of them: see whether rows hold what they should, or use JSON Lines",
        ) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise TrainerError(
            Reason.DATASET_MALFORMED,
            f"{path.name} cannot be read as Parquet ({first_line(error)}): write it anew, or use "
            "JSON Lines",
        ) from error


def next_rows(batches: Iterator[RecordBatch]) -> list[dict[str, Any]]:
    """Some more rows; none at the end. Raises MemoryError for what is far larger than its file."""
    with at_most(MOST_MEMORY_BYTES):
        for batch in batches:
            if batch.num_rows:
                return list(batch.to_pylist())
    return []


def require_small_groups(file: ParquetFile, name: str) -> None:
    metadata = file.metadata
    sizes = [metadata.row_group(each).total_byte_size for each in range(metadata.num_row_groups)]
    if max(sizes, default=0) > LARGEST_GROUP_BYTES:
        raise TrainerError(
            Reason.DATASET_MALFORMED,
            f"{name} has a group of rows of {max(sizes) / 1e9:.1f} GB: write it with smaller "
            "groups (row_group_size=10000)",
        )
