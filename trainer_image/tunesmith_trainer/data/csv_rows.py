"""Comma-separated values with a header, as RFC 4180 has them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith_trainer.data.rows import (
    LONGEST_ROW,
    LONGEST_ROW_BYTES,
    Row,
    checked,
    complaint,
    problem_with_json,
)
from tunesmith_trainer.data.text_file import TextFile, decoded, open_text

#: Columns whose cells are lists, written as JSON.
NESTED_COLUMNS = frozenset({"messages", "conversations", "choices", "turns", "reference"})


def read_csv(path: Path) -> Iterator[Row]:
    """A row for each record; its line is the first one that the record is on."""
    csv.field_size_limit(LONGEST_ROW_BYTES)
    with open_text(path) as file:
        lines = CountedLines(file)
        reader = csv.reader(lines, strict=True)
        header: list[str] | None = None
        while True:
            start = lines.number + 1
            lines.taken = 0
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"no valid CSV ({error}): put cells with quotes or line breaks in quotes"
                raise complaint(file.name, start, problem) from error
            if not record:
                continue
            if header is None:
                header = checked_header(file.name, start, record)
                continue
            yield checked(file.name, start, fields_of(file.name, start, header, record))


class CountedLines:
    """Decoded lines of a file. ``taken`` are the bytes since somebody set it to zero."""

    def __init__(self, file: TextFile) -> None:
        self.file = file
        self.lines = file.lines()
        self.number = 0
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, raw = next(self.lines)
        self.taken += len(raw)
        if self.taken > LONGEST_ROW_BYTES:
            problem = f"{LONGEST_ROW}; or a quotation mark is not closed"
            raise complaint(self.file.name, self.number, problem)
        return decoded(self.file.name, self.number, raw)


def checked_header(file: str, line: int, header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise complaint(file, line, "one column with ';' or tabs in it: separate cells by commas")
    if len(set(names)) < len(names) or not all(names):
        raise complaint(file, line, "the header must name every column, each differently")
    return names


def fields_of(file: str, line: int, header: list[str], record: list[str]) -> dict[str, Any]:
    if len(record) != len(header):
        problem = (
            f"{len(record)} cells where the header has {len(header)}: put cells with commas in "
            "quotes"
        )
        raise complaint(file, line, problem)
    return {
        name: nested(file, line, name, cell) if name in NESTED_COLUMNS else cell
        for name, cell in zip(header, record, strict=True)
    }


def nested(file: str, line: int, name: str, cell: str) -> Any:
    if not cell.strip():
        return None
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        problem = (
            f'"{name}" is no JSON ({problem_with_json(error)}): write the list as JSON, in quotes'
        )
        raise complaint(file, line, problem) from error
