"""Checkpoints are whole or not there, and what they belong to is told by the plan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.trainer_contract import PLAN_READER, TrainingPlan
from tunesmith_trainer.output import FolderStore
from tunesmith_trainer.train.checkpoints import (
    MANIFEST_FILE,
    Checkpoints,
    checkpoints_of,
    forget,
    result_identity,
)

from tests.unit.trainer.given import MEMORY, TRAINING

BASE = "sha256:" + "b" * 64
CUT = (4, 1)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(FolderStore("pvc://adapters/job/checkpoints/x", tmp_path), BASE)


def writing(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(content)
        (folder / "random.pt").write_bytes(b"dice")

    return write


def saved(checkpoints: Checkpoints, *steps: int) -> Checkpoints:
    for step in steps:
        checkpoints.save(step, writing(b"%d" % step), CUT)
    return checkpoints


def test_the_newest_is_the_one_with_most_steps(checkpoints: Checkpoints) -> None:
    found = saved(checkpoints, 9, 100, 20).newest()
    assert found is not None
    assert found.step == 100
    assert (found.folder / "weights.safetensors").read_bytes() == b"100"


def test_none_is_found_where_none_is(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None


def truncated(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"2")


def flipped(folder: Path) -> None:
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[0] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(content))


def without_a_file(folder: Path) -> None:
    (folder / "random.pt").unlink()


def without_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()


def with_half_a_manifest(folder: Path) -> None:
    text = (folder / MANIFEST_FILE).read_text()
    (folder / MANIFEST_FILE).write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    "damage", [truncated, flipped, without_a_file, without_manifest, with_half_a_manifest]
)
def test_a_damaged_one_is_passed_over(
    checkpoints: Checkpoints,
    tmp_path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    saved(checkpoints, 10, 20)
    damage(tmp_path / "step-20")
    with caplog.at_level(logging.WARNING):
        found = checkpoints.newest()
    assert found is not None
    assert found.step == 10
    assert "step-20 is passed over" in caplog.text


def test_one_of_another_base_model_is_passed_over(checkpoints: Checkpoints, tmp_path: Path) -> None:
    saved(checkpoints, 10)
    other = Checkpoints(checkpoints.store, "sha256:" + "c" * 64)
    assert other.newest() is None


def test_an_interruption_leaves_none(checkpoints: Checkpoints, tmp_path: Path) -> None:
    def write_half(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(10, write_half, CUT)
    assert list(tmp_path.iterdir()) == []


def test_the_last_two_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    saved(checkpoints, 10, 20, 30, 40, 50).prune(best=20)
    assert checkpoints.steps() == [20, 40, 50]


def test_attempts_are_counted(checkpoints: Checkpoints) -> None:
    checkpoints.begin(0, CUT)
    attempts = checkpoints.begin(30, (2, 1))
    assert [(each.number, each.from_step) for each in attempts] == [(1, 0), (2, 30)]


def test_those_of_one_result_are_forgotten_and_others_stay(tmp_path: Path) -> None:
    output = FolderStore("pvc://adapters/job", tmp_path)
    for identity in ("sha256:" + "1" * 64, "sha256:" + "2" * 64):
        saved(checkpoints_of(output, identity, BASE), 1)
    forget(output, "sha256:" + "1" * 64)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2" * 16]


# --- what belongs to one result ------------------------------------------------------------------


def plan(**changes: Any) -> TrainingPlan:
    digest = "sha256:" + "d" * 64
    raw = {
        "kind": "Training",
        "owner": "team/job",
        "baseModel": {"uri": "pvc://models/tiny", "path": "/mnt/models/tiny"},
        "prepared": {"uri": "pvc://adapters/prepared/x", "path": "/mnt/x"},
        "datasetUri": "pvc://data/rows.jsonl",
        "dataset": {
            **{"digest": digest, "heldOutDigest": digest},
            **{"rows": 3, "heldOutRows": 1, "duplicateRows": 0, "trainRows": 2},
        },
        "heldOut": {},
        "lora": {},
        "training": TRAINING,
        "memory": MEMORY,
        "output": {"uri": "pvc://adapters/job", "path": "/mnt/job"},
        "image": "trainer:1",
        **changes,
    }
    read = PLAN_READER.validate_python(raw)
    assert isinstance(read, TrainingPlan)
    return read


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": {**MEMORY, "microBatchSize": 2, "gradientAccumulation": 4}},
        {"memory": {**MEMORY, "gradientAccumulation": 1, "processes": 2, "parallelism": "FSDP2"}},
        {"memory": {**MEMORY, "activationCheckpointing": "Full", "predictedPeakBytes": 5}},
        {"image": "trainer:2"},
        {"nodes": 2, "processesPerNode": 4, "rendezvous": "job-0:29500"},
        {"training": {**TRAINING, "checkpointMinutes": 1}},
        {"reportTo": [{"kind": "TensorBoard"}]},
    ],
)
def test_how_the_work_is_cut_and_where_it_runs_is_no_part_of_the_identity(
    changes: dict[str, Any],
) -> None:
    assert result_identity(plan(**changes)) == result_identity(plan())


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": {**MEMORY, "microBatchSize": 2}},
        {"memory": {**MEMORY, "method": "DoRA"}},
        {"memory": {**MEMORY, "optimizer": "AdamW8bit"}},
        {"training": {**TRAINING, "seed": 1}},
        {"lora": {"rank": 4}},
        {"baseModel": {"uri": "pvc://models/other", "path": "/mnt/models/tiny"}},
    ],
)
def test_what_changes_the_result_changes_the_identity(changes: dict[str, Any]) -> None:
    assert result_identity(plan(**changes)) != result_identity(plan())
