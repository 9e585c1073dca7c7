"""What training publishes: an adapter or a model, and everything that tells of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.job_status import ArtifactKind
from tunesmith.api.method import Method
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PROMPT_EXAMPLES_FILE,
    RECEIPT_FILE,
    REPORT_FILE,
)

from tunesmith_trainer import artifact
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.lineage import Lineage
from tunesmith_trainer.train.checkpoints import Attempt
from tunesmith_trainer.train.report.page import render

if TYPE_CHECKING:
    from torch import Tensor

#: Small enough to be written and read a few at a time.
SHARD_SIZE = "4GB"
#: What a model folder brings besides weights and tokenizer, and what training does not change.
UNCHANGED = ("config.json", "generation_config.json")


@dataclass(frozen=True)
class Result:
    """Everything but the weights."""

    base_folder: Path
    #: Held-out and prompt examples, and the receipt, go with the artifact.
    prepared_folder: Path
    chat: ChatFormat
    lineage: Lineage
    history: Sequence[dict[str, Any]]
    attempts: Sequence[Attempt]

    @property
    def kind(self) -> ArtifactKind:
        full = self.lineage.plan.memory.method is Method.FULL
        return ArtifactKind.MODEL if full else ArtifactKind.ADAPTER


def write_result(folder: Path, result: Result, model: Any, learned: dict[str, Tensor]) -> None:
    """``learned`` are the weights of the best step, whole, by the names of ``model``."""
    from tunesmith_trainer.train.lora import save_adapter

    lineage = result.lineage
    if result.kind is ArtifactKind.MODEL:
        save_model(learned, result.base_folder, folder)
    else:
        save_adapter(model, learned, folder, lineage.base_model.uri)
    result.chat.tokenizer.save_pretrained(folder)
    for name in (HELD_OUT_FILE, PROMPT_EXAMPLES_FILE, RECEIPT_FILE):
        shutil.copyfile(result.prepared_folder / name, folder / name)
    for name, text in (
        (artifact.LINEAGE_FILE, as_json(lineage.to_json())),
        (artifact.METRICS_FILE, as_json(list(result.history))),
        (REPORT_FILE, render(lineage, result.history, result.attempts)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def save_model(learned: dict[str, Tensor], base_folder: Path, folder: Path) -> None:
    """The weights in the base model's own type, under the names of its architecture's files.

    An empty model of the same configuration does the writing: the trained one may be sharded.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(base_folder, trust_remote_code=False)
    stored = config.dtype or torch.float32
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=stored, trust_remote_code=False)
    empty.generation_config = GenerationConfig()
    weights = {name: tensor.to(stored) for name, tensor in learned.items()}
    try:
        empty.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)
    except SafetensorError as error:  # it says so when the volume is full, and nothing more
        raise OSError(str(error)) from error
    for name in UNCHANGED:
        (folder / name).unlink(missing_ok=True)
        if (base_folder / name).is_file():
            shutil.copyfile(base_folder / name, folder / name)


def as_json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
