"""Adapters with random weights, good ones and spoiled ones, to try serving with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy
from safetensors.numpy import save_file
from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest

#: Output and input features of the projections that vLLM serves, by their names.
Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Model:
    """The part of a base model's configuration that an adapter must fit."""

    layers: int
    shapes: Shapes

    @classmethod
    def read(cls, folder: Path) -> Model:
        config = json.loads((folder / "config.json").read_text())
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        head = config.get("head_dim") or hidden // config["num_attention_heads"]
        values = head * config["num_key_value_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            shapes={
                "self_attn.q_proj": (head * config["num_attention_heads"], hidden),
                "self_attn.k_proj": (values, hidden),
                "self_attn.v_proj": (values, hidden),
                "self_attn.o_proj": (hidden, head * config["num_attention_heads"]),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner),
            },
        )


class Spoil(StrEnum):
    """What is wrong with an adapter."""

    NOTHING = "nothing"
    WRONG_SHAPE = "wrong-shape"
    NOT_A_NUMBER = "not-a-number"
    DORA = "dora"
    RANK_TOO_LARGE = "rank-too-large"
    MISSING_FILE = "missing-file"
    WRONG_BASE = "wrong-base"
    TRUNCATED = "truncated"


@dataclass(frozen=True)
class Recipe:
    """How an adapter is made; equal recipes make equal bytes."""

    seed: int
    rank: int = 8
    #: Size of the change. At 1 the first token of most answers is another one.
    strength: float = 1.0
    projections: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    layers: int | None = None
    spoil: Spoil = Spoil.NOTHING


def write(folder: Path, model: Model, recipe: Recipe) -> str:
    """Write an adapter; gives its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    rank = 256 if recipe.spoil is Spoil.RANK_TOO_LARGE else recipe.rank
    weights = folder / ADAPTER_WEIGHTS
    save_file(_tensors(model, recipe, rank), weights)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(_configuration(recipe, rank), indent=1))
    if recipe.spoil is Spoil.TRUNCATED:
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    digest = adapter_digest(folder)
    if recipe.spoil is Spoil.MISSING_FILE:
        weights.unlink()
    return digest


def _configuration(recipe: Recipe, rank: int) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": [each.rsplit(".", 1)[-1] for each in recipe.projections],
        "bias": "none",
        "use_dora": recipe.spoil is Spoil.DORA,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _tensors(model: Model, recipe: Recipe, rank: int) -> dict[str, numpy.ndarray]:
    random = numpy.random.default_rng(recipe.seed)
    tensors = {}
    layers = range(model.layers if recipe.layers is None else recipe.layers)
    if recipe.spoil is Spoil.WRONG_BASE:
        layers = range(model.layers, model.layers + 2)
    for layer in layers:
        for projection in recipe.projections:
            outputs, inputs = model.shapes[projection]
            if recipe.spoil is Spoil.WRONG_SHAPE:
                inputs //= 2
            down = random.standard_normal((rank, inputs)) / numpy.sqrt(inputs)
            up = recipe.strength * random.standard_normal((outputs, rank)) / (4 * numpy.sqrt(rank))
            if recipe.spoil is Spoil.NOT_A_NUMBER:
                up[0, 0] = numpy.nan
            prefix = f"base_model.model.model.layers.{layer}.{projection}"
            tensors[f"{prefix}.lora_A.weight"] = down.astype(numpy.float32)
            tensors[f"{prefix}.lora_B.weight"] = up.astype(numpy.float32)
    return tensors
