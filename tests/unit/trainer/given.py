"""A training that took seconds, and plans around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api.objects import HeldOut
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PLAN_READER,
    PREPARED_FOLDER,
    PROMPT_EXAMPLES_FILE,
    RECEIPT_FILE,
    TRAIN_FILE,
    EvaluationPlan,
    TrainingOutcome,
    TrainingPlan,
)
from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.data.split import prompt_examples, split_and_deduplicate
from tunesmith_trainer.prepare.prepared import as_lines, prepared_digest
from tunesmith_trainer.progress import ProgressBoard

BASE_URI = "pvc://models/tiny"


@dataclass(frozen=True)
class Trained:
    plan: TrainingPlan
    outcome: TrainingOutcome
    board: ProgressBoard
    folder: Path


HELD_OUT = HeldOut(fraction=0.2)
TRAINING = {"epochs": 4, "learningRate": 0.02, "maxLength": 64, "batchSize": 8}
MEMORY = {
    "method": "LoRA",
    "microBatchSize": 4,
    "gradientAccumulation": 2,
    "activationCheckpointing": "Off",
    "optimizer": "AdamW",
}
OUTPUT_URI = "pvc://adapters/team/job"


def training_plan(model: Path, folder: Path, **changes: Any) -> TrainingPlan:
    """A plan for the examples that ``write_prepared`` left in the folder."""
    prepared = folder / "out" / PREPARED_FOLDER / "examples"
    raw = {
        "kind": "Training",
        "owner": "team/job",
        "baseModel": {"uri": BASE_URI, "path": str(model)},
        "prepared": {"uri": f"{OUTPUT_URI}/{PREPARED_FOLDER}/examples", "path": str(prepared)},
        "datasetUri": "pvc://data/rows.jsonl",
        "dataset": json.loads((prepared / RECEIPT_FILE).read_text()),
        "heldOut": HELD_OUT.to_json(),
        "lora": {"dropout": 0},
        "training": TRAINING,
        "memory": MEMORY,
        "output": {"uri": OUTPUT_URI, "path": str(folder / "out")},
        "image": "test",
        **changes,
    }
    plan = PLAN_READER.validate_python(raw)
    assert isinstance(plan, TrainingPlan)
    return plan


def write_prepared(folder: Path, rows: int = 40) -> None:
    """Examples as a preparation leaves them, of a dataset that has one row twice."""
    conversations = [
        Conversation(
            (
                Message(Role.USER, f"is {number} a number?"),
                Message(Role.ASSISTANT, "yes"),
            )
        )
        for number in range(rows)
    ]
    dataset = [*conversations, conversations[0]]
    (folder / "rows.jsonl").write_text(as_lines(dataset))
    split = split_and_deduplicate(dataset, HELD_OUT)
    target = folder / "out" / PREPARED_FOLDER / "examples"
    target.mkdir(parents=True)
    for name, examples in (
        (TRAIN_FILE, split.train),
        (HELD_OUT_FILE, split.held_out),
        (PROMPT_EXAMPLES_FILE, prompt_examples(split.train, HELD_OUT.seed)),
    ):
        (target / name).write_text(as_lines(examples))
    receipt = split.receipt.model_copy(update={"digest": prepared_digest(target)})
    (target / RECEIPT_FILE).write_text(json.dumps(receipt.to_json()))


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
