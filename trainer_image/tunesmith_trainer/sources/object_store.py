"""Models, datasets and adapters in a bucket, downloaded to a folder named by their content."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tunesmith.api.locations import Location
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.sources.bucket import Bucket, StoredObject
from tunesmith_trainer.sources.downloads import downloads_folder, require_room, whole
from tunesmith_trainer.sources.mounted import some_of

log = logging.getLogger(__name__)


def download_folder(
    location: Location, credentials: str | None, missing: Reason, files: Sequence[str] = ("*",)
) -> Path:
    """The objects right below a prefix whose names match one of the patterns."""
    bucket = Bucket(location.holder, credentials)
    prefix = f"{location.path}/"
    names = {each.key.removeprefix(prefix): each for each in bucket.listed(prefix)}
    wanted = {
        name: each
        for name, each in names.items()
        if is_file_name(name) and any(fnmatch(name, pattern) for pattern in files)
    }
    if not wanted:
        raise TrainerError(
            missing,
            f"{location} holds {some_of(list(names))}, and nothing that was looked for "
            f"({', '.join(files)}): correct the uri, or put the files there",
        )
    folder = downloads_folder(identity(location, list(wanted.values())))
    fetch(bucket, location, {folder / name: each for name, each in wanted.items()})
    return folder


def is_file_name(name: str) -> bool:
    """Keys are whatever their writer likes; ``..`` would lead out of the folder."""
    return "/" not in name and name not in {"", ".", ".."}


def download_file(location: Location, credentials: str | None, missing: Reason) -> Path:
    """One object."""
    bucket = Bucket(location.holder, credentials)
    found = bucket.find(location.path)
    if found is None:
        folder = location.path.rpartition("/")[0]
        prefix = f"{folder}/" if folder else ""
        # Also tells a missing object from a missing bucket.
        others = [each.key.removeprefix(prefix) for each in bucket.listed(prefix)]
        raise TrainerError(
            missing,
            f"{location} does not exist; its folder has {some_of(others)}: correct the uri, or "
            "put the file there",
        )
    path = downloads_folder(identity(location, [found])) / location.path.rpartition("/")[2]
    fetch(bucket, location, {path: found})
    return path


def fetch(bucket: Bucket, location: Location, objects: dict[Path, StoredObject]) -> None:
    """Download what is not there yet."""
    lacking = {path: each for path, each in objects.items() if not is_there(path, each)}
    if not lacking:
        return
    size = sum(each.size for each in lacking.values())
    require_room(str(location), size)
    log.info("downloading %s (%d files, %.3f GB)", location, len(lacking), size / 1e9)
    for path, each in lacking.items():
        try:
            with whole(path) as partial:
                bucket.download(each.key, partial)
                require_size(location, each, partial)
        except FileNotFoundError as error:
            raise changed(location, each) from error


def is_there(path: Path, wanted: StoredObject) -> bool:
    return path.is_file() and path.stat().st_size == wanted.size


def require_size(location: Location, wanted: StoredObject, path: Path) -> None:
    if path.stat().st_size != wanted.size:
        raise changed(location, wanted)


def changed(location: Location, wanted: StoredObject) -> TrainerError:
    return TrainerError(
        Reason.SOURCE_UNREACHABLE,
        f"{location}: {wanted.key} was replaced or deleted while it was downloaded: leave the "
        "files alone until the job has read them",
    )


def identity(location: Location, objects: list[StoredObject]) -> str:
    """What the store says of the content: another content, another identity."""
    lines = [f"{each.key} {each.size} {each.etag}" for each in objects]
    return "\n".join([str(location), *sorted(lines)])
