"""A store below a prefix of a bucket.

A bucket has no folders and nothing that moves several objects at once. So a folder is what its
list of files says, ``<name>/files.json``: deleted first, uploaded last, with the digest of every
file. Without it nothing counts as there, and what does not match it counts as broken.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from tunesmith.api.digests import file_digest
from tunesmith.api.locations import Location
from tunesmith.api.schema import ApiModel
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.machine import scratch_folder
from tunesmith_trainer.output.folder import STAGING_PREFIX
from tunesmith_trainer.sources.bucket import Bucket
from tunesmith_trainer.sources.downloads import downloads_folder, require_room, whole

log = logging.getLogger(__name__)

FILES_FILE = "files.json"


class StoredFile(ApiModel):
    """One file of a folder. Its name may have several parts."""

    name: str
    size: int
    sha256: str


class Files(ApiModel):
    """The content of files.json."""

    files: list[StoredFile]

    def total_size(self) -> int:
        return sum(each.size for each in self.files)


@dataclass(frozen=True)
class ObjectStore:
    """An OutputStore. ``prefix`` has no slash at either end, and is empty for a whole bucket."""

    uri: str
    bucket: Bucket
    prefix: str

    @classmethod
    def at(cls, location: Location, credentials: str | None) -> ObjectStore:
        bucket = Bucket(location.holder, credentials, Reason.OUTPUT_NOT_WRITABLE)
        return cls(str(location), bucket, location.path)

    def within(self, name: str) -> ObjectStore:
        return ObjectStore(f"{self.uri}/{name}", self.bucket, self._key(name))

    def require_writable(self) -> None:
        key = self._key(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        self.bucket.write(key, b"")
        self.bucket.delete([key])

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="upload-", dir=scratch_folder()) as folder:
            yield Path(folder)

    def put(self, folder: Path, name: str) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = Files(
            files=[
                StoredFile(
                    name=path.relative_to(folder).as_posix(),
                    size=path.stat().st_size,
                    sha256=file_digest(path),
                )
                for path in paths
            ]
        )
        log.info("uploading %s/%s (%.3f GB)", self.uri, name, files.total_size() / 1e9)
        key = self._key(name)
        listing = f"{key}/{FILES_FILE}"
        before = [each.key for each in self.bucket.listed(f"{key}/")]
        self.bucket.delete([each for each in before if each == listing])
        with self._undone(key):
            for path, file in zip(paths, files.files, strict=True):
                self.bucket.upload(path, f"{key}/{file.name}")
            self.bucket.write(listing, files.model_dump_json(by_alias=True).encode())
        kept = {listing, *(f"{key}/{each.name}" for each in files.files)}
        self.bucket.delete([each for each in before if each not in kept])

    @contextmanager
    def _undone(self, key: str) -> Iterator[None]:
        """Leave nothing of an upload that did not end well. What a killed pod leaves counts as
        not there, and the next attempt at the same result writes over it."""
        try:
            yield
        except BaseException:
            with suppress(TrainerError):
                self.bucket.delete([each.key for each in self.bucket.listed(f"{key}/")])
            raise

    def folder(self, name: str) -> Path | None:
        listing = self.read(f"{name}/{FILES_FILE}")
        if listing is None:
            return None
        try:
            files = Files.model_validate_json(listing)
            folder = downloads_folder(f"{self.uri}/{name} {listing.decode()}")
            self._download(name, files, folder)
        except (BrokenFolderError, ValidationError, FileNotFoundError) as error:
            log.warning("%s/%s is broken and counts as not there: %s", self.uri, name, error)
            return None
        return folder

    def _download(self, name: str, files: Files, folder: Path) -> None:
        for file in files.files:
            require_inside(file.name)
        lacking = [each for each in files.files if not is_there(folder / each.name, each)]
        require_room(f"{self.uri}/{name}", sum(each.size for each in lacking))
        for file in lacking:
            with whole(folder / file.name) as partial:
                self.bucket.download(self._key(f"{name}/{file.name}"), partial)
                if file_digest(partial) != file.sha256:
                    raise BrokenFolderError(f"{file.name} is not what was uploaded")

    def names(self) -> list[str]:
        start = f"{self.prefix}/" if self.prefix else ""
        keys = [each.key.removeprefix(start) for each in self.bucket.listed(start)]
        listings = [key.split("/") for key in keys]
        return sorted(parts[0] for parts in listings if parts[1:] == [FILES_FILE])

    def read(self, name: str) -> bytes | None:
        return self.bucket.read(self._key(name))

    def write(self, name: str, text: str) -> None:
        self.bucket.write(self._key(name), text.encode())

    def remove(self, name: str) -> None:
        key = self._key(name)
        self.bucket.delete([f"{key}/{FILES_FILE}"])
        self.bucket.delete([each.key for each in self.bucket.listed(f"{key}/")])

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


def is_there(path: Path, file: StoredFile) -> bool:
    return path.is_file() and file_digest(path) == file.sha256


class BrokenFolderError(Exception):
    """A folder of which something is missing or different."""


def require_inside(name: str) -> None:
    """A list of files comes from outside: none of its names may lead out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise BrokenFolderError(f"{name!r} is no name of a file in a folder")
