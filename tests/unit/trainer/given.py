"""A training that took seconds, and plans around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PLAN_READER,
    EvaluationPlan,
    TrainingOutcome,
    TrainingPlan,
)
from tunesmith_trainer.progress import ProgressBoard

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
        "digest": outcome.artifact.digest,
        "suites": [
            {
                "suite": {
                    "name": "held-out",
                    "dataset": {"uri": f"{outcome.artifact.uri}/{HELD_OUT_FILE}"},
                    "maxNewTokens": 8,
                },
                "questions": {
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
