"""Whether a source still holds what the plan says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunesmith.api.trainer_contract import PlannedSource, Reason

from tunesmith_trainer.failure import TrainerError


def require_digest(
    source: PlannedSource, reason: Reason, digest_of: Callable[[Path], str], path: Path
) -> None:
    """Raises TrainerError if the plan names a digest and these bytes have another."""
    if source.content_digest is None:
        return
    found = digest_of(path)
    if found != source.content_digest:
        raise other_digest(source, reason, found)


def other_digest(source: PlannedSource, reason: Reason, found: str) -> TrainerError:
    return TrainerError(
        reason,
        f"{source.uri} has the digest {found}, not {source.content_digest}: put the old content "
        "back, or name the new digest",
    )
