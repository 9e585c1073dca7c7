"""What is said when a model is not where the plan says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import PlannedSource, Reason
from tunesmith_trainer.failure import TrainerError, failure_from
from tunesmith_trainer.lineage import hub_revision
from tunesmith_trainer.sources import dataset_file, model_folder

URI = "pvc://models/llama"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=f"{URI} does not exist") as raised:
        model_folder(PlannedSource(uri=URI, path=str(tmp_path / "llama")))
    assert raised.value.reason is Reason.MODEL_NOT_FOUND


def test_a_folder_without_a_model_is_named_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(TrainerError, match=r"looked for config.json .* found README.md") as raised:
        model_folder(PlannedSource(uri=URI, path=str(tmp_path)))
    assert raised.value.reason is Reason.MODEL_NOT_FOUND


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(TrainerError, match=r"no \*.safetensors") as raised:
        model_folder(PlannedSource(uri=URI, path=str(tmp_path)))
    assert raised.value.reason is Reason.MODEL_UNUSABLE


def test_an_unreachable_hub_is_nobodys_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainerError, match="hf://team/model@v1") as raised:
        model_folder(PlannedSource(uri="hf://team/model@v1"))
    assert raised.value.reason is Reason.HUB_UNREACHABLE
    assert failure_from(raised.value).failure_class is FailureClass.DATA_UNREACHABLE


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(hub: Path, kind: str, name: str, text: str) -> None:
    """A file of org/tiny as the hub's cache has it after a download."""
    repository = hub / f"{kind}--org--tiny"
    path = repository / "snapshots" / COMMIT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)


def test_the_commit_is_known_whatever_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "datasets", "data/rows.jsonl", "{}")
    for name in ("config.json", "model.safetensors"):
        cached(tmp_path, "models", name, "{}")
    rows = dataset_file(PlannedSource(uri="hf://datasets/org/tiny@main/data/rows.jsonl"))
    assert rows.read_text() == "{}"
    assert hub_revision(rows) == COMMIT
    assert hub_revision(model_folder(PlannedSource(uri="hf://org/tiny"))) == COMMIT


def test_what_is_not_from_the_hub_has_no_commit() -> None:
    assert hub_revision(Path("/mnt/claims/data/rows.jsonl")) is None
    assert hub_revision(Path("/mnt/claims/snapshots")) is None
