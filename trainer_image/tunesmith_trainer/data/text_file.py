"""A text file, read in bounded pieces, and unpacked if it is a .gz."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.rows import LONGEST_ROW, LONGEST_ROW_BYTES, complaint
from tunesmith_trainer.failure import TrainerError, first_line

#: Text becomes 3 to 20 times as small; what unpacks to more than this is a trap.
MOST_EXPANSION = 200
#: Packed, a line costs next to nothing, and reading it a millionth of a second.
MOST_BLANK_LINES = 1_000_000
#: Small files may be as repetitive as they like.
ALWAYS_ALLOWED_BYTES = 64 * 1024**2


class TextFile:
    """What can be read of an open file; ``name`` is for complaints."""

    def __init__(self, path: Path, file: BinaryIO, most_bytes: int | None) -> None:
        self.name = path.name
        self._file = file
        self._left = most_bytes

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Every line with its number from 1."""
        number = blank = 0
        while line := self._counted(self._file.readline(LONGEST_ROW_BYTES + 1)):
            number += 1
            if len(line) > LONGEST_ROW_BYTES:
                raise complaint(self.name, number, LONGEST_ROW)
            blank = 0 if line.strip() else blank + 1
            if blank > MOST_BLANK_LINES:
                problem = f"{MOST_BLANK_LINES:,} blank lines before it: is it what its name says?"
                raise complaint(self.name, number, problem)
            yield number, line

    def read(self, size: int) -> bytes:
        """Some more bytes; none at the end."""
        return self._counted(self._file.read(size))

    def _counted(self, piece: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise TrainerError(
                    Reason.DATASET_MALFORMED,
                    f"{self.name} unpacks to more than {MOST_EXPANSION} times its size: that is no "
                    "text that anybody wrote. Give the file as it is, without .gz",
                )
        return piece


@contextmanager
def open_text(path: Path) -> Iterator[TextFile]:
    """Raises TrainerError for what is no .gz although it is called one."""
    if path.suffix.lower() != ".gz":
        with path.open("rb") as file:
            yield TextFile(path, file, None)
        return
    most = max(ALWAYS_ALLOWED_BYTES, path.stat().st_size * MOST_EXPANSION)
    try:
        with gzip.open(path) as packed:
            yield TextFile(path, cast(BinaryIO, packed), most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TrainerError(
            Reason.DATASET_MALFORMED,
            f"{path.name} cannot be unpacked ({first_line(error)}): pack it with gzip, or give it "
            "without .gz",
        ) from error


def decoded(file: str, number: int, raw: bytes, unit: str = "line") -> str:
    """The text of some bytes. Raises TrainerError if they are not UTF-8."""
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 ({error.reason}): save the file as UTF-8"
        raise complaint(file, number, problem, unit) from error
