"""Files that strangers may have written to a claim: plain ones, and on that claim.

A link may lead to what only this pod sees, such as its environment with the keys of a Secret, and a
pipe keeps whoever opens it waiting for ever.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.trainer_contract import PlannedSource, Reason

from tunesmith_trainer.failure import TrainerError

#: Of what describes a model or an adapter, such as its tokenizer: a few megabytes are usual.
LARGEST_DESCRIPTION_BYTES = 256 * 1024**2
DESCRIPTIONS = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken"})


def require_inside(source: PlannedSource, path: Path, reason: Reason) -> None:
    """Raises TrainerError for a path that leads out of the volume that the uri names."""
    volume = volume_of(source)
    try:
        inside = volume is None or path.resolve().is_relative_to(volume.resolve())
    except (OSError, RuntimeError):
        # Links in a circle.
        inside = False
    if not inside:
        raise TrainerError(
            reason,
            f"{source.uri}: {path.name} is a link that leads out of the volume: put the file "
            "itself there",
        )


def require_plain_files(source: PlannedSource, folder: Path, reason: Reason) -> None:
    """Raises TrainerError unless everything right below the folder is a file or a folder, of the
    same volume, and of a size that somebody would read. What is not there is nobody's concern."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink():
            require_inside(source, path, reason)
        if path.is_dir():
            continue
        if path.exists() and not path.is_file():
            raise TrainerError(
                reason, f"{source.uri}: {path.name} is a pipe or a device: put a file there"
            )
        large = path.is_file() and path.stat().st_size > LARGEST_DESCRIPTION_BYTES
        if large and path.suffix in DESCRIPTIONS:
            raise TrainerError(
                reason,
                f"{source.uri}: {path.name} has {path.stat().st_size / 1e9:.1f} GB, and no such "
                f"file has more than {LARGEST_DESCRIPTION_BYTES / 1e9:.2f} GB: is it what its "
                "name says?",
            )


def volume_of(source: PlannedSource) -> Path | None:
    """Where the volume is mounted: the path in the pod without what the uri says of it."""
    location = parse_location(source.uri)
    if source.path is None or location.scheme not in {Scheme.PVC, Scheme.CONFIG_MAP}:
        return None
    inner = PurePosixPath(location.path).parts
    path = Path(source.path)
    return path.parents[len(inner) - 1] if inner else path
