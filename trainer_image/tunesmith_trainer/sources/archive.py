"""A model in a tar archive, unpacked next to it: nothing outside its folder, nothing beyond room.

The archive's digest was checked before.
"""

from __future__ import annotations

import errno
import logging
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tunesmith.api.digests import MODEL_CONFIG
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line
from tunesmith_trainer.machine import at_most
from tunesmith_trainer.sources.downloads import no_room, room

log = logging.getLogger(__name__)

UNPACKED_FOLDER = "unpacked"
MOST_MEMORY_BYTES = 512 * 1024**2
#: A model has some hundred files.
MOST_MEMBERS = 10_000
#: What archives of all kinds lead to, in tarfile and below it.
MISTAKES = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError),
    *(MemoryError, RecursionError, LookupError),
)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def model_in(archive: Path, uri: str) -> Path:
    """The folder of the archive that has config.json: its root, or the one folder in it."""
    folder = archive.parent / UNPACKED_FOLDER
    if not folder.is_dir():
        log.info("unpacking %s", archive.name)
        staging = archive.parent / f"{UNPACKED_FOLDER}.partial"
        shutil.rmtree(staging, ignore_errors=True)
        unpack(archive, staging, uri)
        staging.rename(folder)
    nested = [each for each in folder.iterdir() if (each / MODEL_CONFIG).is_file()]
    return folder if len(nested) != 1 or (folder / MODEL_CONFIG).is_file() else nested[0]


def unpack(archive: Path, folder: Path, uri: str) -> None:
    """Raises TrainerError for what is no archive, and for members that lead out of the folder."""
    folder.mkdir()
    try:
        # tarfile holds whatever a header promises: a name of ten gigabytes, a million holes.
        with at_most(MOST_MEMORY_BYTES), tarfile.open(archive, "r:*") as tar:
            tar.extractall(folder, members(tar, uri), filter="data")
    except MISTAKES as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise no_room(uri, "more than there is", room()) from error
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} cannot be unpacked ({first_line(error)}): make it with `tar --create --gzip` "
            "in the folder of the model, of plain files only",
        ) from error


def members(tar: tarfile.TarFile, uri: str) -> Iterator[tarfile.TarInfo]:
    """The members, as long as there is room for them: what is small packed need not stay so."""
    left = free = room()
    for number, member in enumerate(tar, start=1):
        left -= member.size
        if left < 0:
            raise no_room(uri, f"more than {free / 1e9:.1f} GB", free)
        if number > MOST_MEMBERS:
            raise tarfile.ReadError(f"more than {MOST_MEMBERS} members")
        yield member
