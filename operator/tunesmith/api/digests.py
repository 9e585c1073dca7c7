"""The digests that name adapters and base models: what the trainer named is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
#: What is served, and so what an adapter's digest is about.
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
MODEL_CONFIG = "config.json"

BLOCK_BYTES = 8 * 1024 * 1024


def file_digest(path: Path) -> str:
    """Of one file, in blocks: it may be far larger than the memory."""
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def files_digest(folder: Path, names: Iterable[str]) -> str:
    """One digest over several files, by name and content. Raises OSError.

    The same as ``sha256sum FILES | sha256sum`` in that folder, the files in byte order of names.
    """
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in sorted(names)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def adapter_digest(folder: Path) -> str:
    """The digest that names an adapter. Raises FileNotFoundError if a file is missing."""
    return files_digest(folder, ADAPTER_FILES)


def base_model_digest(folder: Path) -> str:
    """The digest of a base model's configuration and weights. Raises OSError."""
    return files_digest(folder, [MODEL_CONFIG, *(path.name for path in weight_files(folder))])


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
