"""Preflight: tensors of the right names, ranks, shapes, types and values pass, and only those."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from tunesmith.api.digests import ADAPTER_WEIGHTS
from tunesmith.api.reasons import RefusalReason
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.preflight import Facts, examine

from tests.unit.bounds import quick_and_small
from tests.unit.operator.adapters import (
    DOWN,
    Adapter,
    Q,
    Stored,
    half_name,
    pair,
    refused,
    write_base,
)

INFINITE = {"F32": struct.pack("<f", float("inf")), "F16": b"\x00\xfc", "BF16": b"\x80\x7f"}
NOT_A_NUMBER = {"F32": struct.pack("<f", float("nan")), "F16": b"\x01\x7c", "BF16": b"\xc1\xff"}


# Good ones


@pytest.mark.parametrize("data_type", ["F32", "F16", "BF16"])
def test_a_good_adapter_passes(adapter: Adapter, base: BaseModel, data_type: str) -> None:
    adapter.tensors = pair(Q, data_type=data_type) | pair(DOWN, data_type=data_type)
    expected = adapter.expected()
    size = (adapter.folder / ADAPTER_WEIGHTS).stat().st_size
    assert examine(expected, base, 4) == Facts(4, size, 4, shapes_checked=True)


def test_an_adapter_that_safetensors_wrote_passes(adapter: Adapter, base: BaseModel) -> None:
    adapter.expected()
    path = adapter.folder / ADAPTER_WEIGHTS
    save_file(load_file(path), path, metadata={"format": "pt"})
    assert examine(adapter.named(), base, 4).tensors == 4


def test_without_the_base_model_the_rest_is_still_checked(adapter: Adapter) -> None:
    assert not examine(adapter.expected(), None, 16).shapes_checked
    adapter.configuration["r"] = 2
    refused(adapter.expected(), RefusalReason.RANK_MISMATCH)


def test_shapes_that_nobody_knows_are_said_to_be_unchecked(
    adapter: Adapter, tmp_path: Path
) -> None:
    packed = {f"{each}.qweight": Stored((3, 7), "I32") for each in (Q, DOWN)}
    base = BaseModel.read(write_base(tmp_path / "base", packed))
    assert not examine(adapter.expected(), base, 16).shapes_checked


# Ranks and shapes


@pytest.mark.parametrize("changed", [{"r": 32}, {"rank_pattern": {"q_proj": 32}}])
def test_ranks_beyond_the_servers_are_refused(adapter: Adapter, changed: dict[str, Any]) -> None:
    adapter.configuration |= changed
    refused(adapter.expected(), RefusalReason.RANK_TOO_LARGE, "32", "16", "server.maxLoraRank")


@pytest.mark.parametrize("changed", [{"r": 8}, {"rank_pattern": {"q_proj": 2}}])
def test_ranks_that_the_tensors_lack_are_refused(adapter: Adapter, changed: dict[str, Any]) -> None:
    adapter.configuration |= changed
    refused(adapter.expected(), RefusalReason.RANK_MISMATCH, Q, "rank 4")


def test_the_rank_of_the_second_half_counts_too(adapter: Adapter) -> None:
    adapter.tensors[half_name(Q, "B")] = Stored((8, 2))
    refused(adapter.expected(), RefusalReason.RANK_MISMATCH, half_name(Q, "B"), "rank 2")


@pytest.mark.parametrize(("half", "shape"), [("A", (4, 16)), ("A", (4, 4)), ("B", (4, 4))])
def test_shapes_of_another_model_are_refused(
    adapter: Adapter, base: BaseModel, half: str, shape: tuple[int, int]
) -> None:
    adapter.tensors[half_name(Q, half)] = Stored(shape)
    words = (half_name(Q, half), str(list(shape)), "8 x 8")
    refused(adapter.expected(), RefusalReason.WRONG_SHAPE, *words, base=base)


@pytest.mark.parametrize("shape", [(), (32,), (4, 8, 1)])
def test_tensors_that_are_no_matrices_are_refused(adapter: Adapter, shape: tuple[int, ...]) -> None:
    adapter.tensors[half_name(Q, "A")] = Stored(shape)
    refused(adapter.expected(), RefusalReason.WRONG_SHAPE, half_name(Q, "A"), str(list(shape)))


@pytest.mark.parametrize(
    "module", ["model.layers.2.self_attn.q_proj", "transformer.layers.0.self_attn.q_proj"]
)
def test_modules_that_the_base_lacks_are_refused(
    adapter: Adapter, base: BaseModel, module: str
) -> None:
    adapter.tensors |= {
        half_name(module, "A"): Stored((4, 8)),
        half_name(module, "B"): Stored((8, 4)),
    }
    refused(adapter.expected(), RefusalReason.UNKNOWN_MODULE, module, base=base)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"{Q}.lora_A.weight",
        f"base_model.model.{Q}.lora_A.default.weight",
        "lora_A.weight",
        "line\nbreak",
        "half \ud800 a character",
        "long" * 1000,
        half_name("long" * 1000, "A"),
        "",
    ],
    ids=lambda name: ascii(name[:60]),
)
def test_tensors_of_other_names_are_refused(adapter: Adapter, name: str) -> None:
    adapter.tensors[name] = Stored((4, 8))
    refused(adapter.expected(), RefusalReason.UNKNOWN_MODULE, "MODULE.lora_A.weight")


@pytest.mark.parametrize(("gone", "word"), [("A", "lora_A"), ("B", "lora_B")])
def test_half_a_pair_is_refused(adapter: Adapter, gone: str, word: str) -> None:
    del adapter.tensors[half_name(DOWN, gone)]
    refused(adapter.expected(), RefusalReason.HALF_PAIR, DOWN, word)


def test_no_weights_are_refused(adapter: Adapter) -> None:
    adapter.tensors = {}
    refused(adapter.expected(), RefusalReason.NO_WEIGHTS, ADAPTER_WEIGHTS)


@pytest.mark.parametrize("data_type", ["F64", "I8", "F8_E4M3"])
def test_other_data_types_are_refused(adapter: Adapter, data_type: str) -> None:
    adapter.tensors[half_name(Q, "A")] = Stored((4, 8), data_type)
    refused(adapter.expected(), RefusalReason.WRONG_DATA_TYPE, Q, data_type, "BF16")


# Values


@pytest.mark.parametrize("data_type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [INFINITE, NOT_A_NUMBER])
@pytest.mark.parametrize("position", [0, 31])
def test_one_value_that_is_not_finite_is_enough(
    adapter: Adapter, data_type: str, value: dict[str, bytes], position: int
) -> None:
    adapter.tensors = pair(Q, data_type=data_type) | pair(DOWN, data_type=data_type)
    name = half_name(Q, "B")
    content = bytearray(adapter.tensors[name].content())
    width = len(content) // 32
    content[width * position : width * (position + 1)] = value[data_type]
    adapter.tensors[name] = Stored((8, 4), data_type, bytes(content))
    refused(adapter.expected(), RefusalReason.NOT_FINITE, name)


@pytest.mark.parametrize(("value", "passes"), [(-65504.0, True), (3e38, False), (-65536.0, False)])
def test_values_that_sixteen_bits_cannot_hold_are_refused(
    adapter: Adapter, value: float, passes: bool
) -> None:
    name = half_name(Q, "A")
    adapter.tensors[name] = Stored((4, 8), "F32", struct.pack("<f", value) * 32)
    expected = adapter.expected()
    if passes:
        assert examine(expected, None, 16)
    else:
        refused(expected, RefusalReason.NOT_FINITE, name)


def test_every_block_is_looked_at(adapter: Adapter) -> None:
    name = half_name(Q, "A")
    columns = 2_000_000
    content = bytes(2 * 4 * columns - 2) + NOT_A_NUMBER["BF16"]
    adapter.tensors[name] = Stored((4, columns), "BF16", content)
    expected = adapter.expected()
    with quick_and_small():
        refused(expected, RefusalReason.NOT_FINITE, name)
