"""A store in a folder of a volume: what appears in it is moved there in one step."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError

STAGING_PREFIX = ".staging-"


@dataclass(frozen=True)
class FolderStore:
    """An OutputStore. ``path`` need not exist before something is written."""

    uri: str
    path: Path

    def within(self, name: str) -> FolderStore:
        return FolderStore(f"{self.uri}/{name}", self.path / name)

    def require_writable(self) -> None:
        with output_errors(self.uri):
            self.path.mkdir(parents=True, exist_ok=True)
            probe = staging_name(self.path)
            probe.touch()
            probe.unlink()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """On the same volume, so that it can be moved."""
        folder = staging_name(self.path)
        with output_errors(self.uri):
            try:
                folder.mkdir(parents=True)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def put(self, folder: Path, name: str) -> None:
        target = self.path / name
        replaced = staging_name(self.path)
        with output_errors(self.uri):
            make_readable_and_durable(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if target.exists():
                    target.rename(replaced)
                folder.rename(target)
                make_durable(target.parent)
            finally:
                if replaced.exists() and not target.exists():
                    replaced.rename(target)
                shutil.rmtree(replaced, ignore_errors=True)

    def folder(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.is_dir() else None

    def names(self) -> list[str]:
        with output_errors(self.uri):
            entries = list(self.path.iterdir()) if self.path.is_dir() else []
        return sorted(
            each.name
            for each in entries
            if each.is_dir() and not each.name.startswith(STAGING_PREFIX)
        )

    def read(self, name: str) -> bytes | None:
        with output_errors(self.uri):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, text: str) -> None:
        with output_errors(self.uri):
            write_whole(self.path / name, text)

    def remove(self, name: str) -> None:
        with output_errors(self.uri):
            grave = staging_name(self.path)
            try:
                (self.path / name).rename(grave)
            except FileNotFoundError:
                return
            shutil.rmtree(grave)


def staging_name(folder: Path) -> Path:
    return folder / f"{STAGING_PREFIX}{uuid.uuid4().hex}"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    staging = staging_name(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, encoding="utf-8")
        staging.chmod(0o644)
        make_durable(staging)
        staging.rename(path)
        make_durable(path.parent)
    finally:
        staging.unlink(missing_ok=True)


def make_readable_and_durable(folder: Path) -> None:
    """Servers run as other users, and safetensors writes files that only their owner can read."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        if path.is_dir():
            make_readable_and_durable(path)
        else:
            path.chmod(0o644)
            make_durable(path)
    make_durable(folder)


def make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainerError(
            Reason.OUTPUT_NOT_WRITABLE,
            f"cannot write to {uri} ({error.strerror or error}): the claim must be writable for "
            "user 65532 (fsGroup 65532) and have space left",
        ) from error
