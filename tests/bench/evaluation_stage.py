"""What an evaluation needs, made up: a model with random weights, an adapter, and questions.

The questions have the form of MMLU and lie twice in a folder: as the hub has them, for lm-eval, and
as ``fetch-tasks`` prepares them, for the trainer.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.unit.trainer.mmlu_data import mmlu_subjects, write_mmlu

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIAL = ["<|bos|>", "<|start|>", "<|end|>", "<|pad|>"]


@dataclass(frozen=True)
class Stage:
    """Folders that both sides read, and what both compute in."""

    model: Path
    adapter: Path
    #: Holds cais/mmlu as the hub does.
    hub: Path
    #: The same, prepared.
    data: Path
    #: Name of a torch.dtype.
    compute_type: str


def byte_tokenizer(size: int | None = None) -> PreTrainedTokenizerFast:
    """A token for each byte. Names that no text spells fill it up to ``size`` tokens.

    ``size`` has to be that of the model's vocabulary: lm-eval cuts the model down to the tokenizer
    when it puts an adapter on, and then other probabilities come out.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    filling = [f"<unused {n}>" for n in range((size or 0) - len(alphabet) - len(SPECIAL))]
    vocabulary = {token: number for number, token in enumerate(alphabet + filling)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
    )


def small_stage(folder: Path, items: int) -> Stage:
    """A model of 25 million parameters: with it, a CPU computes longer than it imports."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar
    from tunesmith_trainer import machine

    disable_progress_bar()
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    compute_type = machine.compute_type(machine.device())
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            # Wide enough for the output layer to tell tokens apart.
            initializer_range=0.05,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(compute_type)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(folder / "adapter")
    name = str(compute_type).removeprefix("torch.")
    return with_questions(folder, folder / "model", folder / "adapter", name, items)


def with_questions(
    folder: Path, model: Path, adapter: Path, compute_type: str, items: int
) -> Stage:
    """A stage with ``items`` questions of each of MMLU's subjects."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    with patch("tests.unit.trainer.mmlu_data.question", question):
        hub = write_mmlu(folder / "hub", mmlu_subjects(), [items])
    data = folder / "data"
    fetch = ["fetch-tasks", "--task", "mmlu", "--output", str(data), "--from", str(hub)]
    subprocess.run(
        [sys.executable, "-m", "tunesmith_trainer", *fetch],
        check=True,
        env={**os.environ, "TUNESMITH_LOG_LEVEL": "WARNING"},
    )
    return Stage(model, adapter, hub, data, compute_type)


def question(subject: str, chance: random.Random) -> dict[str, Any]:
    """Five solved ones and one to answer are 650 bytes, about as many as MMLU's have tokens."""
    left, right = chance.randrange(100, 900), chance.randrange(10, 100)
    answer = chance.randrange(4)
    return {
        "question": f"Tom has {left} books and buys {right} more. How many has he now?",
        "subject": subject,
        "choices": [str(left + right + number - answer) for number in range(4)],
        "answer": answer,
    }


def plan(stage: Stage, answers: Path, base_results: Path) -> str:
    """The plan of an evaluation that keeps the base model's answers in ``base_results``."""
    from tunesmith.api.digests import adapter_digest
    from tunesmith.api.trainer_contract import EvaluationPlan

    def source(path: Path) -> dict[str, str]:
        return {"uri": f"pvc://bench/{path.name}", "path": str(path)}

    suite = {"name": "mmlu", "benchmark": {"name": "mmlu", "data": "pvc://bench/data"}}
    planned = EvaluationPlan.model_validate(
        {
            "kind": "Evaluation",
            "owner": "bench/evaluation",
            "baseModel": source(stage.model),
            "adapter": source(stage.adapter),
            "digest": adapter_digest(stage.adapter),
            "suites": [{"suite": suite, "benchmarkData": source(stage.data)}],
            "output": source(answers),
            "baseResults": source(base_results),
        }
    )
    return json.dumps(planned.to_json())
