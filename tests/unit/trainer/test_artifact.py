"""The adapter's folder appears whole or not at all, and its digest says what is in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tunesmith.api import digests
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.job_status import Artifact, Progress, TrainingPhase
from tunesmith.api.trainer_contract import Reason, TrainingOutcome
from tunesmith_trainer import artifact
from tunesmith_trainer.failure import Preempted, TrainerError
from tunesmith_trainer.output import FolderStore

URI = "pvc://adapters/team/job"
PLAN = "sha256:" + "1" * 64
BASE = "sha256:" + "2" * 64


def writing(weights: bytes, **others: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / digests.ADAPTER_WEIGHTS).write_bytes(weights)
        (folder / digests.ADAPTER_WEIGHTS).chmod(0o600)
        (folder / digests.ADAPTER_CONFIG).write_text("{}")
        for name, text in others.items():
            (folder / name).write_text(text)

    return write


def receipt(rows: int = 10) -> DatasetReceipt:
    return DatasetReceipt(
        digest=PLAN,
        rows=rows,
        held_out_rows=1,
        held_out_digest=PLAN,
        duplicate_rows=0,
        train_rows=9,
    )


def store(path: Path) -> FolderStore:
    return FolderStore(URI, path)


def remembered(output: Path) -> TrainingOutcome:
    name, digest = artifact.publish(store(output), writing(b"weights"))
    outcome = TrainingOutcome(
        artifact=Artifact(uri=f"{URI}/{name}", digest=digest, base_model_digest=BASE, rank=16),
        dataset=receipt(),
        progress=Progress(phase=TrainingPhase.DONE),
    )
    artifact.remember(store(output), PLAN, outcome)
    return outcome


def test_the_digest_is_what_coreutils_say(tmp_path: Path) -> None:
    name, digest = artifact.publish(store(tmp_path), writing(b"weights"))
    said = subprocess.run(
        "sha256sum adapter_config.json adapter_model.safetensors | sha256sum",
        shell=True,
        cwd=tmp_path / name,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert digest == f"sha256:{said.split()[0]}"
    assert name == said[:16]


def test_the_digest_is_about_the_adapter_only(tmp_path: Path) -> None:
    _, first = artifact.publish(store(tmp_path / "a"), writing(b"weights", lineage="monday"))
    _, second = artifact.publish(store(tmp_path / "b"), writing(b"weights", lineage="tuesday"))
    _, third = artifact.publish(store(tmp_path / "c"), writing(b"other", lineage="monday"))
    assert first == second != third


def test_servers_that_run_as_other_users_can_read_it(tmp_path: Path) -> None:
    name, _ = artifact.publish(store(tmp_path), writing(b"weights"))
    folder = tmp_path / name
    assert folder.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())


@pytest.mark.parametrize("interruption", [RuntimeError("disk gone"), Preempted()])
def test_an_interruption_leaves_nothing(tmp_path: Path, interruption: BaseException) -> None:
    def write_half(folder: Path) -> None:
        (folder / digests.ADAPTER_WEIGHTS).write_bytes(b"half")
        raise interruption

    with pytest.raises(type(interruption)):
        artifact.publish(store(tmp_path), write_half)
    assert list(tmp_path.iterdir()) == []


def test_publishing_the_same_adapter_again_keeps_the_first(tmp_path: Path) -> None:
    first, _ = artifact.publish(store(tmp_path), writing(b"weights", lineage="first"))
    second, _ = artifact.publish(store(tmp_path), writing(b"weights", lineage="second"))
    assert first == second
    assert (tmp_path / first / "lineage").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == [first]


def test_a_finished_plan_is_recalled(tmp_path: Path) -> None:
    outcome = remembered(tmp_path)
    assert artifact.recall(store(tmp_path), PLAN, receipt(), BASE) == outcome


def test_a_result_is_forgotten_when_its_files_have_changed(tmp_path: Path) -> None:
    outcome = remembered(tmp_path)
    folder = tmp_path / outcome.artifact.uri.rsplit("/", 1)[-1]
    (folder / digests.ADAPTER_WEIGHTS).write_bytes(b"tampered")
    assert artifact.recall(store(tmp_path), PLAN, receipt(), BASE) is None


def test_a_result_is_forgotten_when_it_was_made_from_something_else(tmp_path: Path) -> None:
    """The same uris may hold another model or other rows by now."""
    remembered(tmp_path)
    assert artifact.recall(store(tmp_path), PLAN, receipt(rows=11), BASE) is None
    assert artifact.recall(store(tmp_path), PLAN, receipt(), PLAN) is None
    assert artifact.recall(store(tmp_path), BASE, receipt(), BASE) is None


def test_an_output_that_cannot_be_written_is_found_out_early(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainerError, match="cannot write to pvc://adapters") as raised:
        store(tmp_path / "file" / "folder").require_writable()
    assert raised.value.reason is Reason.OUTPUT_NOT_WRITABLE
