"""JSON Lines, and arrays of JSON objects: read object by object."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path

from tunesmith_trainer.data.rows import (
    LONGEST_ROW,
    LONGEST_ROW_BYTES,
    Row,
    checked,
    complaint,
    problem_with_json,
)
from tunesmith_trainer.data.text_file import TextFile, decoded, open_text
from tunesmith_trainer.failure import TrainerError

PIECE_BYTES = 256 * 1024
WHITESPACE = re.compile(r"[ \t\r\n]*")


def read_json_lines(path: Path) -> Iterator[Row]:
    """One object per line."""
    with open_text(path) as file:
        yield from rows_of_lines(file.name, file.lines())


def rows_of_lines(name: str, lines: Iterator[tuple[int, bytes]]) -> Iterator[Row]:
    for number, raw in lines:
        if raw.strip():
            yield parse_line(name, number, raw)


def parse_line(file: str, number: int, raw: bytes) -> Row:
    text = decoded(file, number, raw)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        problem = (
            f"invalid JSON{column} ({problem_with_json(error)}): write one complete JSON object "
            "per line, not an array or an indented object"
        )
        raise complaint(file, number, problem) from error
    return checked(file, number, fields)


def read_json(path: Path) -> Iterator[Row]:
    """An array of objects, or JSON Lines in a file that is called .json."""
    with open_text(path) as file:
        first = file.read(PIECE_BYTES)
        is_array = first.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
        if is_array:
            yield from ArrayReader(file, first).rows()
    if not is_array:
        yield from read_json_lines(path)


class ArrayReader:
    """The elements of one array, with no more of the file in memory than the one being read."""

    def __init__(self, file: TextFile, first: bytes) -> None:
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.parser = json.JSONDecoder()
        self.row = 1
        self.text = self._decoded(first)
        #: How far ``text`` has been read.
        self.at = 0
        self.ended = not first

    def rows(self) -> Iterator[Row]:
        self._expect("[", "an array of objects")
        if self._next() == "]":
            return
        while True:
            yield checked(self.file.name, self.row, self._element(), "row")
            self.row += 1
            if self._next() == "]":
                return
            self._expect(",", "a comma or the end of the array")

    def _element(self) -> object:
        """The next value. What is incomplete and what is wrong look the same until all is read."""
        self._next()
        while True:
            try:
                value, end = self.parser.raw_decode(self.text, self.at)
                # A number may go on in what is not read yet; an object ends with its brace.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self.ended or not isinstance(error, json.JSONDecodeError):
                    what = problem_with_json(error)
                    problem = f"invalid JSON ({what}): write one array of complete objects"
                    raise self._complaint(problem) from error
            unread = len(self.text) - self.at
            if unread > LONGEST_ROW_BYTES:
                raise self._complaint(f"{LONGEST_ROW}; or it is no valid JSON")
            self._read(max(PIECE_BYTES, unread))

    def _next(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            self.at = end_of_space(self.text, self.at)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read(PIECE_BYTES)

    def _expect(self, character: str, meaning: str) -> None:
        if self._next() != character:
            found = self.text[self.at : self.at + 20] or "the end of the file"
            raise self._complaint(f"found {found!r} where {meaning} belongs")
        self.at += 1

    def _read(self, size: int) -> None:
        piece = self.file.read(size)
        self.ended = not piece
        self.text, self.at = self.text[self.at :] + self._decoded(piece), 0

    def _decoded(self, piece: bytes) -> str:
        try:
            return self.decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 ({error.reason}) at or after it: save the file as UTF-8"
            raise self._complaint(problem) from error

    def _complaint(self, problem: str) -> TrainerError:
        return complaint(self.file.name, self.row, problem, "row")


def end_of_space(text: str, start: int) -> int:
    found = WHITESPACE.match(text, start)
    assert found is not None, "white space may be empty"
    return found.end()
