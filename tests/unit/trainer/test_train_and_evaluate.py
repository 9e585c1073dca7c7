"""From rows to an adapter to a measured difference, with a tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api import digests
from tunesmith.api.evalrun import EvaluationPhase, Metric
from tunesmith.api.finetunejob import TrainingPhase
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PLAN_READER,
    EvaluationOutcome,
    EvaluationPlan,
    Reason,
    TrainingOutcome,
    TrainingPlan,
)

pytest.importorskip("torch")
pytest.importorskip("trl")

from tunesmith_trainer import artifact
from tunesmith_trainer.evaluate.recipe import evaluate
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train.recipe import train

BASE_URI = "pvc://models/tiny"


@dataclass(frozen=True)
class Trained:
    plan: TrainingPlan
    outcome: TrainingOutcome
    board: ProgressBoard
    folder: Path


def training_plan(model: Path, folder: Path, **changes: Any) -> TrainingPlan:
    raw = {
        "kind": "Training",
        "owner": "team/job",
        "baseModel": {"uri": BASE_URI, "path": str(model)},
        "dataset": {"uri": "pvc://data/rows.jsonl", "path": str(folder / "rows.jsonl")},
        "heldOut": {"fraction": 0.2},
        "method": "LoRA",
        "lora": {"dropout": 0},
        "training": {
            "epochs": 4,
            "learningRate": 0.02,
            "maxLength": 64,
            "batchSize": 8,
            "microBatchSize": 4,
        },
        "output": {"uri": "pvc://adapters/team/job", "path": str(folder / "out")},
        "image": "test",
        **changes,
    }
    plan = PLAN_READER.validate_python(raw)
    assert isinstance(plan, TrainingPlan)
    return plan


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("job")
    write_dataset(folder)
    plan, board = training_plan(tiny_model, folder), ProgressBoard()
    outcome = train(plan, board)
    return Trained(plan, outcome, board, folder / "out" / outcome.artifact.uri.rsplit("/", 1)[-1])


def write_dataset(folder: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"is {number} a number?"},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for number in range(40)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in [*rows, rows[0]])
    (folder / "rows.jsonl").write_text(text)


def evaluation_plan(trained: Trained, **changes: Any) -> EvaluationPlan:
    outcome = trained.outcome
    raw = {
        "kind": "Evaluation",
        "owner": "team/run",
        "baseModel": {"uri": BASE_URI, "path": trained.plan.base_model.path},
        "adapter": {"uri": outcome.artifact.uri, "path": str(trained.folder)},
        "adapterDigest": outcome.artifact.digest,
        "suites": [
            {
                "suite": {
                    "name": "held-out",
                    "dataset": {"uri": f"{outcome.artifact.uri}/{HELD_OUT_FILE}"},
                    "maxNewTokens": 8,
                },
                "dataset": {
                    "uri": f"{outcome.artifact.uri}/{HELD_OUT_FILE}",
                    "path": str(trained.folder / HELD_OUT_FILE),
                    "digest": outcome.dataset.held_out_digest,
                },
            }
        ],
        **changes,
    }
    plan = PLAN_READER.validate_python(raw)
    assert isinstance(plan, EvaluationPlan)
    return plan


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


def test_the_adapter_beats_its_base(trained: Trained, tmp_path: Path) -> None:
    board = ProgressBoard()
    output = {"uri": "pvc://answers", "path": str(tmp_path)}
    outcome: EvaluationOutcome = evaluate(evaluation_plan(trained, output=output), board)
    (result,) = outcome.results
    assert (result.metric, result.items) == (Metric.ACCURACY, 8)
    assert (result.base, result.adapter, result.difference) == (0, 100, 100)
    assert result.confidence_interval.lower == 100
    assert result.dataset_digest == trained.outcome.dataset.held_out_digest
    assert outcome.base_model_digest == trained.outcome.artifact.base_model_digest
    progress = board.report().evaluation
    assert progress is not None
    assert (progress.phase, progress.items_done, progress.items_total) == (
        EvaluationPhase.DONE,
        16,
        16,
    )
    rows = [json.loads(line) for line in (tmp_path / "held-out.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(row["adapterAnswer"] == "yes" != row["baseAnswer"] for row in rows)


def test_an_adapter_of_zeros_is_found_out(trained: Trained, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "zeros"
    shutil.copytree(trained.folder, folder)
    weights = folder / digests.ADAPTER_WEIGHTS
    save_file({name: tensor * 0 for name, tensor in load_file(weights).items()}, weights)
    plan = evaluation_plan(
        trained,
        adapter={"uri": "pvc://adapters/zeros", "path": str(folder)},
        adapterDigest=digests.adapter_digest(folder),
    )
    with pytest.raises(TrainerError, match="pvc://adapters/zeros changes nothing") as raised:
        evaluate(plan, ProgressBoard())
    assert raised.value.reason is Reason.ADAPTER_NOT_APPLIED


def test_another_adapter_than_the_plan_names_is_refused(trained: Trained) -> None:
    plan = evaluation_plan(trained, adapterDigest="sha256:" + "0" * 64)
    with pytest.raises(TrainerError, match="was changed after") as raised:
        evaluate(plan, ProgressBoard())
    assert raised.value.reason is Reason.ADAPTER_CHANGED


def test_a_folder_without_an_adapter_is_named(trained: Trained, tmp_path: Path) -> None:
    adapter = {"uri": "pvc://adapters/none", "path": str(tmp_path / "none")}
    with pytest.raises(TrainerError, match="pvc://adapters/none holds no adapter") as raised:
        evaluate(evaluation_plan(trained, adapter=adapter), ProgressBoard())
    assert raised.value.reason is Reason.ADAPTER_NOT_FOUND


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
