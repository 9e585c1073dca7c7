"""What lies on a volume of this pod: claims and ConfigMaps."""

from __future__ import annotations

from pathlib import Path

from tunesmith.api.trainer_contract import PlannedSource, Reason

from tunesmith_trainer.failure import TrainerError


def mounted(source: PlannedSource) -> Path:
    """The path of something that must be on a volume of this pod."""
    if source.path is None:
        raise TrainerError(Reason.INTERNAL, f"the plan names no path for {source.uri}")
    return Path(source.path)


def listed(folder: Path, limit: int = 5) -> str:
    """What lies in a folder, for a message."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return "nothing (the folder does not exist)"
    return some_of(names, limit)


def some_of(names: list[str], limit: int = 5) -> str:
    """Names for a message: the first ones, and how many more there are."""
    shown = ", ".join(sorted(names)[:limit]) or "nothing"
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
