"""Reading JSON Lines. Every complaint names the file, the line, and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError


@dataclass(frozen=True)
class Row:
    """One line of a file."""

    file: str
    line: int
    fields: dict[str, Any]

    def complaint(self, problem: str) -> TrainerError:
        return complaint(self.file, self.line, problem)


def complaint(file: str, line: int, problem: str) -> TrainerError:
    return TrainerError(Reason.DATASET_MALFORMED, f"{file} line {line}: {problem}")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one at a time. Blank lines are skipped."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield Row(path.name, number, parse_line(path.name, number, raw))


def parse_line(file: str, number: int, raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 ({error.reason}): save the file as UTF-8"
        raise complaint(file, number, problem) from error
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        problem = (
            f"invalid JSON at column {error.colno} ({error.msg}): write one complete JSON object "
            "per line, not an array or an indented object"
        )
        raise complaint(file, number, problem) from error
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        problem = "half a character (a lone surrogate such as \\ud83d): write the whole character"
        raise complaint(file, number, problem) from error
    if not isinstance(fields, dict):
        kind = type(fields).__name__
        problem = f"a {kind} where a JSON object belongs: write one object per line"
        raise complaint(file, number, problem)
    return fields
