"""From rows to an adapter, with a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api import digests
from tunesmith.api.job_status import TrainingPhase
from tunesmith.api.trainer_contract import (
    Reason,
)

pytest.importorskip("torch")
pytest.importorskip("peft")

from tunesmith_trainer import artifact
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train.recipe import train

from tests.unit.trainer.given import BASE_URI, TRAINING, Trained, training_plan, write_prepared


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
                {name: value for name, value in as_dict(path).items() if name != "plan"}
            ), path.name


def published(folder: Path) -> list[str]:
    """Folders of results below the output."""
    ours = {"prepared", "checkpoints", "plans"}
    return sorted({path.name for path in (folder / "out").iterdir()} - ours)


def as_dict(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    return value if isinstance(value, dict) else {"entries": value}


def test_the_same_plan_is_not_trained_twice(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("trained a second time")

    monkeypatch.setattr("tunesmith_trainer.train.assembly.build_trainer", never)
    assert train(trained.plan, ProgressBoard()) == trained.outcome


def test_no_credential_is_in_anything_that_training_leaves(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They are in the pod's environment; what it leaves is for others to read."""
    canary = "canary-4f1c9e07"
    for name in ("HF_TOKEN", "DATASET_AWS_SECRET_ACCESS_KEY", "OUTPUT_AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, canary)
    write_prepared(tmp_path)
    board = ProgressBoard()
    train(training_plan(tiny_model, tmp_path), board)
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert artifact.LINEAGE_FILE in {file.name for file in left}
    assert [file.name for file in left if canary.encode() in file.read_bytes()] == []
    assert canary not in caplog.text
    assert canary not in board.report().model_dump_json()


def test_layers_that_do_not_exist_are_named_with_those_that_do(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_prepared(tmp_path)
    plan = training_plan(tiny_model, tmp_path, lora={"targetModules": ["q_proj", "qkv_proj"]})
    with pytest.raises(TrainerError, match=r"no layers named qkv_proj: .*down_proj") as raised:
        train(plan, ProgressBoard())
    assert raised.value.reason is Reason.TARGET_MODULES_NOT_FOUND
    assert published(tmp_path) == []


def test_a_loss_that_is_no_number_ends_training(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "model"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    write_prepared(tmp_path)
    with pytest.raises(TrainerError, match=r"lower training\.learningRate") as raised:
        train(training_plan(broken, tmp_path), ProgressBoard())
    assert raised.value.reason is Reason.LOSS_NOT_FINITE
    assert published(tmp_path) == []


def test_steps_without_anything_to_learn_end_training(tiny_model: Path, tmp_path: Path) -> None:
    """Their loss would be 0, or no number, and the job would look like a success."""
    from tunesmith_trainer.data.chat import Example
    from tunesmith_trainer.train.assembly import build_trainer

    write_prepared(tmp_path)
    questions = [Example(tokens=[1, 2, 3, 4], prompt_length=4)] * 8
    trainer = build_trainer(
        training_plan(tiny_model, tmp_path), tiny_model, questions, [], tmp_path / "scratch"
    )
    with pytest.raises(TrainerError, match="step 1 has no token to learn from") as raised:
        trainer.train()
    assert raised.value.reason is Reason.STEP_WITHOUT_ANSWERS


def test_training_stops_when_more_is_of_no_use(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss on the dev slice rises from the second epoch on: the first epoch is published."""
    from tunesmith_trainer.train.lasting import LastingTrainer

    evaluate = LastingTrainer.evaluate
    losses = iter([1.0, 1.1, 1.2, 1.3])

    def rising(self: Any, *_: Any, **__: Any) -> Any:
        loss = next(losses)
        monkeypatch.setattr(LastingTrainer, "mean_dev_loss", lambda _: loss)
        return evaluate(self)

    monkeypatch.setattr(LastingTrainer, "evaluate", rising)
    write_prepared(tmp_path)
    training = {**TRAINING, "earlyStoppingPatience": 2}
    outcome = train(training_plan(tiny_model, tmp_path, training=training), ProgressBoard())
    folder = tmp_path / "out" / outcome.artifact.uri.rsplit("/", 1)[-1]
    run = as_dict(folder / artifact.LINEAGE_FILE)["run"]
    steps = outcome.progress.total_steps
    assert steps is not None
    assert run["lastStep"] == 3 * steps // 4
    assert run["publishedStep"] == steps // 4
    assert run["stoppedEarly"]


def test_no_held_out_example_chooses_the_best_epoch(trained: Trained) -> None:
    lineage = as_dict(trained.folder / artifact.LINEAGE_FILE)
    assert lineage["devSlice"]["rows"] == 2
    assert lineage["devSlice"]["digest"] != trained.outcome.dataset.held_out_digest


def test_examples_that_changed_since_they_were_prepared_are_not_trained_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_prepared(tmp_path)
    plan = training_plan(tiny_model, tmp_path)
    examples = Path(str(plan.prepared.path)) / "train.jsonl"
    examples.write_text(examples.read_text().replace("yes", "no"))
    with pytest.raises(TrainerError, match="no longer holds the prepared examples") as raised:
        train(plan, ProgressBoard())
    assert raised.value.reason is Reason.PREPARED_DATA_CHANGED
