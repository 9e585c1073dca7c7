"""Where results go: a folder on a volume or a prefix of a bucket, behind one protocol."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.trainer_contract import PlannedSource

from tunesmith_trainer.output.folder import FolderStore
from tunesmith_trainer.output.store import OutputStore, staged
from tunesmith_trainer.sources.mounted import mounted

__all__ = ["FolderStore", "OutputStore", "open_output", "place_of", "staged", "stored_folder"]


def open_output(target: PlannedSource) -> OutputStore:
    """The store at the place that a plan names for results."""
    location = parse_location(target.uri)
    if location.scheme is Scheme.S3:
        from tunesmith_trainer.output.objects import ObjectStore

        return ObjectStore.at(location, target.credentials)
    return FolderStore(target.uri.rstrip("/"), mounted(target))


def stored_folder(source: PlannedSource) -> Path | None:
    """A folder that was put into a store, by the uri of the folder itself; None if there is none.

    In a bucket it is downloaded, and only what was uploaded whole counts as there.
    """
    store, name = place_of(source)
    return store.folder(name)


def place_of(source: PlannedSource) -> tuple[OutputStore, str]:
    """The store that a folder lies in, and the folder's name there."""
    uri, _, name = source.uri.rstrip("/").rpartition("/")
    if source.path is None:
        return open_output(source.model_copy(update={"uri": uri})), name
    path = PurePosixPath(source.path)
    return open_output(source.model_copy(update={"uri": uri, "path": str(path.parent)})), path.name
