"""Tiny adapters and base models on disk, good ones that a test then spoils, to be refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pytest
from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_FILES, ADAPTER_WEIGHTS, files_digest
from tunesmith.api.reasons import RefusalReason
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.preflight import Expected, examine
from tunesmith.sidecar.refusal import Refused

HIDDEN, INTERMEDIATE, HEADS, KEY_VALUE_HEADS, VOCABULARY = 8, 12, 4, 2, 10
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (4, HIDDEN),
    "self_attn.v_proj": (4, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
BASE_CONFIGURATION = {
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "tie_word_embeddings": True,
}
CONFIGURATION = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "down_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "loftq_config": {},
    "megatron_config": None,
    "megatron_core": "megatron.core",
}
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1, "I32": 4, "F8_E4M3": 1}


@dataclass(frozen=True)
class Stored:
    """A tensor to write. Filled with ones of its type unless ``data`` says otherwise."""

    shape: tuple[int, ...]
    data_type: str = "F32"
    data: bytes | None = None

    def content(self) -> bytes:
        if self.data is not None:
            return self.data
        count = int(numpy.prod(self.shape))
        one = {"F32": struct.pack("<f", 1), "F16": struct.pack("<e", 1), "BF16": b"\x80\x3f"}
        return one.get(self.data_type, b"\1" * ITEM_BYTES[self.data_type]) * count


def safetensors(tensors: Mapping[str, Stored]) -> bytes:
    """A whole file, written by hand: numpy knows no bfloat16, and tests need spoiled ones."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        content = tensor.content()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {
            "dtype": tensor.data_type,
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        data += content
    return with_header(json.dumps(header).encode(), data)


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def half_name(module: str, half: str) -> str:
    return f"base_model.model.{module}.lora_{half}.weight"


def pair(
    module: str, rank: int = 4, data_type: str = "F32", out: int | None = None
) -> dict[str, Stored]:
    out_features, in_features = SHAPES[module.split(".", 3)[-1]]
    return {
        half_name(module, "A"): Stored((rank, in_features), data_type),
        half_name(module, "B"): Stored((out or out_features, rank), data_type),
    }


@dataclass
class Adapter:
    """Written by ``expected``, with the digest of what it wrote."""

    root: Path
    configuration: dict[str, Any] = field(default_factory=lambda: dict(CONFIGURATION))
    tensors: dict[str, Stored] = field(default_factory=lambda: pair(Q) | pair(DOWN))

    @property
    def folder(self) -> Path:
        return self.root / "team" / "adapter"

    def expected(self) -> Expected:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ADAPTER_CONFIG).write_text(json.dumps(self.configuration))
        (self.folder / ADAPTER_WEIGHTS).write_bytes(safetensors(self.tensors))
        return self.named()

    def named(self) -> Expected:
        """With the digest of the files as they are now."""
        return Expected(self.folder, files_digest(self.folder, ADAPTER_FILES), self.root)


def base_tensors(layers: Iterable[int] = (0, 1), prefix: str = "model.") -> dict[str, Stored]:
    tensors = {f"{prefix}embed_tokens.weight": Stored((VOCABULARY, HIDDEN), "BF16")}
    for layer in layers:
        tensors[f"{prefix}layers.{layer}.input_layernorm.weight"] = Stored((HIDDEN,), "BF16")
        for name, shape in SHAPES.items():
            tensors[f"{prefix}layers.{layer}.{name}.weight"] = Stored(shape, "BF16")
    return tensors


def write_base(
    folder: Path,
    tensors: Mapping[str, Stored] | None = None,
    configuration: Mapping[str, Any] = BASE_CONFIGURATION,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(configuration))
    content = safetensors(base_tensors() if tensors is None else tensors)
    (folder / "model.safetensors").write_bytes(content)
    return folder


def base_model(folder: Path) -> BaseModel:
    return BaseModel.read(write_base(folder))


def refused(
    expected: Expected, reason: RefusalReason, *words: str, base: BaseModel | None = None
) -> None:
    with pytest.raises(Refused) as caught:
        examine(expected, base, 16)
    message = caught.value.message
    assert caught.value.reason is reason, message
    assert not [word for word in words if word not in message], message
    assert len(message) < 1000
    assert message.isprintable()
