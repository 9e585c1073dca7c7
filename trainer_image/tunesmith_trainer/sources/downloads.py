"""The folder of downloads: named by content, filled file by file, never beyond the room there is.

A file has its name only when it is whole, so that a second download goes on where the first ended.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.machine import scratch_folder

PARTIAL_SUFFIX = ".partial"
#: Left for what else needs scratch: caches, checkpoints, the log.
RESERVED_BYTES = 256 * 1024**2


def downloads_folder(identity: str) -> Path:
    """The folder for what has this identity; another content has another folder."""
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = scratch_folder() / "downloads" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def room() -> int:
    """Bytes that a download may take."""
    return max(0, shutil.disk_usage(scratch_folder()).free - RESERVED_BYTES)


def require_room(uri: str, needed: int) -> None:
    """Raises TrainerError if so many bytes do not fit into the scratch folder."""
    if needed > (free := room()):
        raise no_room(uri, f"{needed / 1e9:.1f} GB", free)


def no_room(uri: str, needed: str, free: int) -> TrainerError:
    return TrainerError(
        Reason.SCRATCH_FULL,
        f"{uri} needs {needed} of scratch and the pod has {free / 1e9:.1f} GB left: run it on a "
        "node with more ephemeral storage, or put the files on a claim and use pvc://",
    )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write to that gets its name when the block ends well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{PARTIAL_SUFFIX}")
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
