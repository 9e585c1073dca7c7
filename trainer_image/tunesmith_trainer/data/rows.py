"""Rows of a file, whatever its form. Every complaint names file and place, and what to write.

The suffix says what the file is: .jsonl (and whatever is not named here), .json (an array), .csv,
each of them also packed as .gz, and .parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError

#: A row that is longer is a mistake in the file, and would take the memory of thousands.
LONGEST_ROW_BYTES = 16 * 1024**2
LONGEST_ROW = "longer than 16 MiB: split it, or see whether line breaks are missing before it"


@dataclass(frozen=True)
class Row:
    """One row of a file. ``line`` counts lines from 1, or rows where a file has no lines."""

    file: str
    line: int
    fields: dict[str, Any]
    unit: str = "line"

    def complaint(self, problem: str) -> TrainerError:
        return complaint(self.file, self.line, problem, self.unit)


def complaint(file: str, line: int, problem: str, unit: str = "line") -> TrainerError:
    return TrainerError(Reason.DATASET_MALFORMED, f"{file} {unit} {line}: {problem}")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one at a time; never much more of it in memory. Blank lines are skipped.

    Raises TrainerError(DATASET_MALFORMED) for the first row that cannot be read.
    """
    unpacked = PurePath(path.name.lower().removesuffix(".gz"))
    match unpacked.suffix:
        case ".parquet":
            from tunesmith_trainer.data.parquet import read_parquet

            return read_parquet(path)
        case ".csv":
            from tunesmith_trainer.data.csv_rows import read_csv

            return read_csv(path)
        case ".json":
            from tunesmith_trainer.data.json_rows import read_json

            return read_json(path)
        case _:
            from tunesmith_trainer.data.json_rows import read_json_lines

            return read_json_lines(path)


def problem_with_json(error: ValueError | RecursionError) -> str:
    """What json.loads stumbled over, as a clause."""
    match error:
        case json.JSONDecodeError():
            return error.msg
        case RecursionError():
            return "lists and objects nested hundreds deep"
        case _:
            return "a number of thousands of digits"


def checked(file: str, line: int, fields: object, unit: str = "line") -> Row:
    """A row of what was read. Raises TrainerError if that is no object of plain values."""
    if not isinstance(fields, dict):
        kind = type(fields).__name__
        problem = f"a {kind} where a JSON object belongs: write one object per {unit}"
        raise complaint(file, line, problem, unit)
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        problem = "half a character (a lone surrogate such as \\ud83d): write the whole character"
        raise complaint(file, line, problem, unit) from error
    except RecursionError as error:
        raise complaint(file, line, f"{problem_with_json(error)}: flatten them", unit) from error
    except TypeError as error:
        problem = f"{error}: write text, numbers and lists"
        raise complaint(file, line, problem, unit) from error
    return Row(file, line, fields, unit)
