"""Digests of files, by the same formula as the trainer's: what it named must be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 4 * 1024 * 1024


def file_digest(path: Path) -> str:
    """Of one file, in blocks: it may be far larger than the memory."""
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def files_digest(folder: Path, names: Iterable[str]) -> str:
    """The same as ``sha256sum FILES | sha256sum`` in that folder, in byte order of names."""
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in sorted(names)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
