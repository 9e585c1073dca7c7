"""The adapter's folder: what identifies it, and how it appears whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.digests import adapter_digest
from tunesmith.api.trainer_contract import Reason, TrainingOutcome

from tunesmith_trainer.failure import TrainerError

log = logging.getLogger(__name__)

LINEAGE_FILE = "lineage.json"
METRICS_FILE = "metrics.json"

STAGING_PREFIX = ".staging-"
PLANS_FOLDER = "plans"


def require_writable(folder: Path, uri: str) -> None:
    """Find out before training, not after it, that the result cannot be stored."""
    with output_errors(uri):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()


def publish(output: Path, uri: str, write: Callable[[Path], None]) -> tuple[Path, str]:
    """Let ``write`` fill a folder and move it to its place in one step; gives folder and digest.

    The folder is named after the adapter's digest. If it is there already, an earlier attempt
    made the same adapter, and its folder stays.
    """
    staging = output / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    with output_errors(uri):
        try:
            staging.mkdir(parents=True)
            write(staging)
            digest = adapter_digest(staging)
            folder = output / digest.removeprefix("sha256:")[:16]
            make_readable_and_durable(staging)
            if not (folder.is_dir() and adapter_digest(folder) == digest):
                staging.rename(folder)
            make_durable(output)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder, digest


@contextmanager
def staged(folder: Path, uri: str) -> Iterator[Path]:
    """A folder to fill, which takes ``folder``'s place in one step when the block ends well."""
    staging = folder.parent / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    replaced = folder.parent / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    with output_errors(uri):
        try:
            staging.mkdir(parents=True)
            yield staging
            make_readable_and_durable(staging)
            if folder.exists():
                folder.rename(replaced)
            staging.rename(folder)
            make_durable(folder.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if replaced.exists() and not folder.exists():
                replaced.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    staging = path.parent / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, encoding="utf-8")
        staging.chmod(0o644)
        make_durable(staging)
        staging.rename(path)
        make_durable(path.parent)
    finally:
        staging.unlink(missing_ok=True)


def plan_record(output: Path, plan_digest: str) -> Path:
    return output / PLANS_FOLDER / f"{plan_digest.removeprefix('sha256:')}.json"


def remember(output: Path, uri: str, plan_digest: str, outcome: TrainingOutcome) -> None:
    """Note which result a plan has led to, for a pod that is started again with the same plan."""
    with output_errors(uri):
        write_whole(plan_record(output, plan_digest), outcome.model_dump_json(by_alias=True))


def recall(
    output: Path, plan_digest: str, dataset: DatasetReceipt, base_model_digest: str
) -> TrainingOutcome | None:
    """The result of an earlier attempt at the same plan.

    Only if model and rows are still those that it was made from, and its files still what they
    were: uris in a plan say where things are, not what they hold.
    """
    try:
        outcome = TrainingOutcome.model_validate_json(plan_record(output, plan_digest).read_bytes())
        folder = output / outcome.artifact.uri.rsplit("/", 1)[-1]
        unchanged = (
            outcome.dataset == dataset
            and outcome.artifact.base_model_digest == base_model_digest
            and adapter_digest(folder) == outcome.artifact.digest
        )
    except (OSError, ValueError):
        return None
    return outcome if unchanged else None


def make_readable_and_durable(folder: Path) -> None:
    """Servers run as other users, and safetensors writes files that only their owner can read."""
    folder.chmod(0o755)
    for path in folder.iterdir():
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
