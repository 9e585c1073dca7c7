"""Deleting an adapter's folder: all of it, and only the one that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith.api.digests import adapter_digest
from tunesmith.api.trainer_contract import PlannedSource, Reason, RemovalPlan
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.removal import remove


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "claim" / "adapter"
    made.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "lineage.json"):
        (made / name).write_text(name)
    return made


def plan(folder: Path, digest: str) -> RemovalPlan:
    source = PlannedSource(uri="pvc://claim/adapter", path=str(folder))
    return RemovalPlan(owner="team/serving", adapter=source, adapter_digest=digest)


def test_the_folder_is_gone_with_all_that_is_in_it(folder: Path) -> None:
    remove(plan(folder, adapter_digest(folder)))
    assert list(folder.parent.iterdir()) == []


def test_a_second_time_there_is_nothing_to_do(folder: Path) -> None:
    digest = adapter_digest(folder)
    remove(plan(folder, digest))
    assert remove(plan(folder, digest)).uri == "pvc://claim/adapter"


@pytest.mark.parametrize("spoil", ["adapter_model.safetensors", "adapter_config.json"])
def test_another_adapter_is_left_alone(folder: Path, spoil: str) -> None:
    digest = adapter_digest(folder)
    (folder / spoil).write_text("other")
    with pytest.raises(TrainerError, match="left alone") as raised:
        remove(plan(folder, digest))
    assert raised.value.reason is Reason.ADAPTER_CHANGED
    assert (folder / "lineage.json").exists()


def test_a_folder_without_an_adapter_is_left_alone(folder: Path) -> None:
    digest = adapter_digest(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(TrainerError, match="left alone"):
        remove(plan(folder, digest))
    assert (folder / "lineage.json").exists()
