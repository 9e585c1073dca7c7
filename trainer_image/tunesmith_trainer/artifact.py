"""The adapter's folder: what identifies it, how it is published, and how it is found again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.digests import adapter_digest, base_model_digest
from tunesmith.api.job_status import ArtifactKind
from tunesmith.api.trainer_contract import TrainingOutcome

from tunesmith_trainer.output import OutputStore

log = logging.getLogger(__name__)

LINEAGE_FILE = "lineage.json"
METRICS_FILE = "metrics.json"

PLANS_FOLDER = "plans"


def publish(
    output: OutputStore,
    write: Callable[[Path], None],
    digest_of: Callable[[Path], str] = adapter_digest,
) -> tuple[str, str]:
    """Let ``write`` fill a folder and make it appear in one step; gives its name and its digest.

    The folder is named after the digest. If it is there already, an earlier attempt made the
    same, and its folder stays.
    """
    with output.staging() as staging:
        write(staging)
        digest = digest_of(staging)
        name = folder_name(digest)
        if not holds(output, name, digest, digest_of):
            output.put(staging, name)
    return name, digest


def digest_of(kind: ArtifactKind) -> Callable[[Path], str]:
    """How what training makes is named: by its files that are served."""
    return adapter_digest if kind is ArtifactKind.ADAPTER else base_model_digest


def folder_name(digest: str) -> str:
    return digest.removeprefix("sha256:")[:16]


def holds(
    output: OutputStore, name: str, digest: str, digest_of: Callable[[Path], str] = adapter_digest
) -> bool:
    """Whether the folder of that name is there, whole and with this digest."""
    folder = output.folder(name)
    try:
        return folder is not None and digest_of(folder) == digest
    except OSError:
        return False


def remember(output: OutputStore, plan_digest: str, outcome: TrainingOutcome) -> None:
    """Note which result a plan has led to, for a pod that is started again with the same plan."""
    output.write(plan_record(plan_digest), outcome.model_dump_json(by_alias=True))


def recall(
    output: OutputStore, plan_digest: str, dataset: DatasetReceipt, base_model_digest: str
) -> TrainingOutcome | None:
    """The result of an earlier attempt at the same plan.

    Only if model and rows are still those that it was made from, and its files still what they
    were: uris in a plan say where things are, not what they hold.
    """
    record = output.read(plan_record(plan_digest))
    if record is None:
        return None
    try:
        outcome = TrainingOutcome.model_validate_json(record)
    except ValueError:
        return None
    artifact = outcome.artifact
    unchanged = (
        outcome.dataset == dataset
        and artifact.base_model_digest == base_model_digest
        and holds(
            output, artifact.uri.rsplit("/", 1)[-1], artifact.digest, digest_of(artifact.kind)
        )
    )
    return outcome if unchanged else None


def plan_record(plan_digest: str) -> str:
    return f"{PLANS_FOLDER}/{plan_digest.removeprefix('sha256:')}.json"
