"""From rows to an adapter, with a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api import digests
from tunesmith.api.finetunejob import TrainingPhase
from tunesmith.api.trainer_contract import (
    Reason,
)

pytest.importorskip("torch")
pytest.importorskip("trl")

from tunesmith_trainer import artifact
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train.recipe import train

from tests.unit.trainer.given import BASE_URI, Trained, training_plan, write_dataset


def test_training_learns(trained: Trained) -> None:
    history = json.loads((trained.folder / artifact.METRICS_FILE).read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < losses[0] / 4
    evaluated = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(evaluated) == trained.plan.training.epochs


def test_training_reports_what_it_did(trained: Trained) -> None:
    progress = trained.outcome.progress
    assert progress.phase is TrainingPhase.DONE
    assert (progress.percent, progress.step) == (100, progress.total_steps)
    assert progress.eta is None
    assert progress.tokens_per_second is not None
    assert progress.tokens_per_second > 0
    receipt = trained.outcome.dataset
    assert (receipt.rows, receipt.duplicate_rows, receipt.held_out_rows) == (41, 1, 8)
    assert trained.board.report().dataset == receipt


def test_the_artifact_names_its_base_by_uri(trained: Trained) -> None:
    config = json.loads((trained.folder / digests.ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == BASE_URI
    assert config["target_modules"] == sorted(trained.plan.lora.target_modules)
    for name in ("tokenizer.json", "chat_template.jinja", artifact.LINEAGE_FILE):
        assert (trained.folder / name).is_file(), name
    for path in trained.folder.iterdir():
        if path.suffix == ".json":
            assert str(trained.plan.base_model.path) not in json.dumps(
                {k: v for k, v in as_dict(path).items() if k != "plan"}
            ), path.name


def as_dict(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    return value if isinstance(value, dict) else {"entries": value}


def test_the_same_plan_is_not_trained_twice(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("trained a second time")

    monkeypatch.setattr("tunesmith_trainer.train.recipe.build_trainer", never)
    assert train(trained.plan, ProgressBoard()) == trained.outcome


def test_layers_that_do_not_exist_are_named_with_those_that_do(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_dataset(tmp_path)
    plan = training_plan(tiny_model, tmp_path, lora={"targetModules": ["q_proj", "qkv_proj"]})
    with pytest.raises(TrainerError, match=r"no layers named qkv_proj: .*down_proj") as raised:
        train(plan, ProgressBoard())
    assert raised.value.reason is Reason.TARGET_MODULES_NOT_FOUND
    assert not list((tmp_path / "out").iterdir())


def test_a_loss_that_is_no_number_ends_training(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "model"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    write_dataset(tmp_path)
    with pytest.raises(TrainerError, match=r"lower training\.learningRate") as raised:
        train(training_plan(broken, tmp_path), ProgressBoard())
    assert raised.value.reason is Reason.LOSS_NOT_FINITE
    assert not list((tmp_path / "out").iterdir())
