"""What a store of results can do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol


class OutputStore(Protocol):
    """A place for folders and small files. Names may have several parts, as in plans/1.json.

    A folder is there whole or not at all, and so is a file. Every method raises
    TrainerError(OUTPUT_NOT_WRITABLE) when the place cannot be reached, is full, or says no.
    """

    @property
    def uri(self) -> str:
        """Where it is, as a user writes it, without a slash at the end."""

    def within(self, name: str) -> OutputStore:
        """The store of what lies below a name."""

    def require_writable(self) -> None:
        """Find out before the work, not after it, that a result cannot be stored."""

    def staging(self) -> AbstractContextManager[Path]:
        """A folder of this machine to fill. What was not put is gone at the end of the block."""

    def put(self, folder: Path, name: str) -> None:
        """Make a folder from ``staging`` appear under a name, in place of what was there."""

    def folder(self, name: str) -> Path | None:
        """A folder that was put, to be read on this machine; None if there is none or a part of
        it is missing."""

    def names(self) -> list[str]:
        """The folders that are there whole, in byte order."""

    def read(self, name: str) -> bytes | None:
        """A file; None if there is none."""

    def write(self, name: str, text: str) -> None:
        """A file, in place of what was there."""

    def remove(self, name: str) -> None:
        """Delete a folder, so that nobody sees half of it. Gone already is fine."""


@contextmanager
def staged(store: OutputStore, name: str) -> Iterator[Path]:
    """A folder to fill, which appears under its name when the block ends well."""
    with store.staging() as folder:
        yield folder
        store.put(folder, name)
