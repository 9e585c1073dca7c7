"""Every adapter that would hurt vLLM is refused, with a reason and a way out; good ones pass."""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.preflight import (
    WEIGHTS_FILE,
    Expected,
    Facts,
    RefusalReason,
    Refused,
    examine,
)
from tunesmith_trainer import artifact

from tests.unit.operator.adapters import (
    DOWN,
    Adapter,
    Q,
    Stored,
    base_model,
    half_name,
    pair,
    safetensors,
    with_header,
    write_base,
)

CONFIG_FILE = artifact.ADAPTER_CONFIG
MOST_SECONDS = 5
INFINITE = {"F32": struct.pack("<f", float("inf")), "F16": b"\x00\xfc", "BF16": b"\x80\x7f"}
NOT_A_NUMBER = {"F32": struct.pack("<f", float("nan")), "F16": b"\x01\x7c", "BF16": b"\xc1\xff"}


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return Adapter(tmp_path / "claim")


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return base_model(tmp_path / "base")


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


@contextmanager
def quick_and_small() -> Iterator[None]:
    """Of the processor's time, as a busy machine gives it late; what is too much takes minutes."""
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        assert time.process_time() - started < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


# Good ones


@pytest.mark.parametrize("data_type", ["F32", "F16", "BF16"])
def test_a_good_adapter_passes(adapter: Adapter, base: BaseModel, data_type: str) -> None:
    adapter.tensors = pair(Q, data_type=data_type) | pair(DOWN, data_type=data_type)
    expected = adapter.expected()
    size = (adapter.folder / WEIGHTS_FILE).stat().st_size
    assert examine(expected, base, 4) == Facts(4, size, 4, shapes_checked=True)


def test_an_adapter_that_safetensors_wrote_passes(adapter: Adapter, base: BaseModel) -> None:
    adapter.expected()
    path = adapter.folder / WEIGHTS_FILE
    save_file(load_file(path), path, metadata={"format": "pt"})
    assert examine(adapter.named(), base, 4).tensors == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"use_rslora": True, "alpha_pattern": {"q_proj": 3.5}},
        {"modules_to_save": [], "layer_replication": None, "use_qalora": False},
        {"modules_to_save": None, "target_modules": "all-linear", "target_parameters": []},
        *({"init_lora_weights": each} for each in (False, "gaussian", "eva", "Orthogonal", None)),
    ],
)
def test_what_vllm_serves_passes(
    adapter: Adapter, base: BaseModel, changed: dict[str, Any]
) -> None:
    adapter.configuration |= changed
    assert examine(adapter.expected(), base, 16).shapes_checked


@pytest.mark.parametrize(
    "key",
    [
        "down_proj",
        "mlp.down_proj",
        DOWN,
        f"^{DOWN}",
        r"^model\.layers\.\d+\.mlp\.down_proj$",
        r"layers\.(0|1)\.mlp\.(?:up|down)_proj",
        ".*down_proj",
    ],
)
def test_rank_patterns_follow_pefts_rule(adapter: Adapter, base: BaseModel, key: str) -> None:
    adapter.configuration["rank_pattern"] = {key: 8}
    adapter.tensors = pair(Q) | pair(DOWN, rank=8)
    assert examine(adapter.expected(), base, 8).rank == 8


def test_the_first_rank_pattern_that_fits_counts(adapter: Adapter, base: BaseModel) -> None:
    adapter.configuration["rank_pattern"] = {"own_proj": 2, "down_proj": 8, "mlp.down_proj": 2}
    adapter.tensors = pair(Q) | pair(DOWN, rank=8)
    assert examine(adapter.expected(), base, 8).rank == 8


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


def test_links_within_the_volume_are_followed(adapter: Adapter, base: BaseModel) -> None:
    expected = adapter.expected()
    link = adapter.root / "latest"
    link.symlink_to(adapter.folder)
    assert examine(Expected(link, expected.digest, adapter.root), base, 16)


def test_the_digest_is_the_trainers(adapter: Adapter, base: BaseModel) -> None:
    adapter.expected()
    digest = artifact.adapter_digest(adapter.folder)
    assert examine(Expected(adapter.folder, digest, adapter.root), base, 16)


# Where it lies


def test_a_missing_folder_is_refused(adapter: Adapter) -> None:
    refused(Expected(adapter.folder, "", adapter.root), RefusalReason.NOT_FOUND, "team/adapter")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\ud800"])
def test_impossible_paths_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused) as caught:
        examine(Expected(tmp_path / name, "", tmp_path), None, 16)
    assert caught.value.reason is RefusalReason.NOT_FOUND


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    refused(Expected(tmp_path / "one", "", tmp_path), RefusalReason.NOT_FOUND, "one")


def test_a_file_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(Expected(tmp_path / "file", "", tmp_path), RefusalReason.NOT_FOUND, "no folder")


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_files_are_named(adapter: Adapter, missing: str) -> None:
    expected = adapter.expected()
    (adapter.folder / missing).unlink()
    refused(expected, RefusalReason.NOT_FOUND, missing)


@pytest.mark.parametrize("special", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_pipe_is_not_opened(adapter: Adapter, special: str) -> None:
    expected = adapter.expected()
    (adapter.folder / special).unlink()
    os.mkfifo(adapter.folder / special)
    refused(expected, RefusalReason.NOT_FOUND, special)


def test_dots_do_not_lead_outside(adapter: Adapter) -> None:
    expected = adapter.expected()
    other = adapter.root / "other"
    other.mkdir()
    path = other / ".." / "team" / "adapter"
    refused(
        Expected(path, expected.digest, other), RefusalReason.OUTSIDE_ITS_VOLUME, str(path), "other"
    )


def test_a_link_does_not_lead_outside(adapter: Adapter, tmp_path: Path) -> None:
    expected = adapter.expected()
    root = tmp_path / "claim-2"
    root.mkdir()
    (root / "adapter").symlink_to(adapter.folder)
    moved = Expected(root / "adapter", expected.digest, root)
    refused(moved, RefusalReason.OUTSIDE_ITS_VOLUME, "claim-2")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_files_link_does_not_lead_outside(adapter: Adapter, tmp_path: Path, name: str) -> None:
    expected = adapter.expected()
    (adapter.folder / name).rename(tmp_path / name)
    (adapter.folder / name).symlink_to(tmp_path / name)
    refused(expected, RefusalReason.OUTSIDE_ITS_VOLUME, name)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "weights.pth"])
def test_weights_that_can_carry_programs_are_refused(adapter: Adapter, name: str) -> None:
    expected = adapter.expected()
    (adapter.folder / WEIGHTS_FILE).rename(adapter.folder / name)
    refused(expected, RefusalReason.NOT_SAFETENSORS, name, "save_pretrained")


# What the files are


def test_a_changed_file_is_refused(adapter: Adapter) -> None:
    expected = adapter.expected()
    adapter.configuration["lora_alpha"] = 9
    found = adapter.expected().digest
    refused(expected, RefusalReason.DIGEST_MISMATCH, expected.digest, found)


def entry(**changed: object) -> bytes:
    tensor = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]} | changed
    return with_header(json.dumps({"a": tensor}).encode(), b"\0" * 8)


def two(first: list[int], second: list[int]) -> bytes:
    tensors = {
        name: {"dtype": "F32", "shape": [1, 1], "data_offsets": offsets}
        for name, offsets in {"a": first, "b": second}.items()
    }
    return with_header(json.dumps(tensors).encode(), b"\0" * 8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        with_header(b""),
        with_header(b"[]"),
        with_header(b"{"),
        with_header(b'{"a": 1}'),
        with_header(b"\xff\xfe"),
        with_header(b'{"a":' * 50_000),
        with_header(b"[" * 50_000),
        with_header(b'{"a": {}, "a": {}}'),
        with_header(b'{"a": ' + b"9" * 5000 + b"}"),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 1000) + b"{}",
        entry() + b"x",
        entry()[:-1],
        entry(shape=[1, 3]),
        entry(shape=[1, -2]),
        entry(shape=[True, 2]),
        entry(shape=[1.0, 2]),
        entry(shape=[10**30, 10**30]),
        entry(shape=[1] * 1000),
        entry(dtype=None),
        entry(data_offsets=[8, 0]),
        entry(data_offsets=[0, 8, 8]),
        entry(data_offsets=[-8, 0]),
        entry(dtype="X", data_offsets=[0, 4]),
        entry(dtype="X", data_offsets=[8, 0]),
        two([0, 4], [0, 4]),
        two([0, 4], [2, 6]),
        two([0, 4], [8, 12]),
        with_header(b'{"a":"' + b"[" * 2_000_001 + b'"}'),
    ],
    ids=lambda content: repr(content[:60]),
)
def test_weights_that_cannot_be_read_are_refused(adapter: Adapter, content: bytes) -> None:
    adapter.expected()
    (adapter.folder / WEIGHTS_FILE).write_bytes(content)
    refused(adapter.named(), RefusalReason.WEIGHTS_UNREADABLE, WEIGHTS_FILE)


def test_a_copy_that_was_cut_short_is_refused_as_such(adapter: Adapter) -> None:
    expected = adapter.expected()
    os.truncate(adapter.folder / WEIGHTS_FILE, 900)
    refused(expected, RefusalReason.WEIGHTS_UNREADABLE, "cut short", "copy the adapter again")


@pytest.mark.parametrize("header", [False, True])
def test_a_giant_of_nothing_is_refused_at_once(adapter: Adapter, header: bool) -> None:
    """Also behind a good header."""
    expected = adapter.expected()
    if not header:
        os.truncate(adapter.folder / WEIGHTS_FILE, 0)
    os.truncate(adapter.folder / WEIGHTS_FILE, 10 * 1024**3)
    with quick_and_small():
        refused(expected, RefusalReason.WEIGHTS_UNREADABLE, WEIGHTS_FILE)


def test_a_whole_model_is_refused_before_it_is_read(adapter: Adapter) -> None:
    expected = adapter.expected()
    size = 100 * 1024**3
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    content = with_header(json.dumps(header).encode())
    (adapter.folder / WEIGHTS_FILE).write_bytes(content)
    os.truncate(adapter.folder / WEIGHTS_FILE, len(content) + size)
    with quick_and_small():
        refused(expected, RefusalReason.WEIGHTS_UNREADABLE, "whole model")


def test_a_giant_configuration_is_refused_at_once(adapter: Adapter) -> None:
    expected = adapter.expected()
    os.truncate(adapter.folder / CONFIG_FILE, 10 * 1024**3)
    with quick_and_small():
        refused(expected, RefusalReason.CONFIGURATION_UNREADABLE, "larger than 1048576")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"peft_type": "LORA"}',
        '{"r": ' + "9" * 5000 + "}",
        "\ufeff{}",
    ],
    ids=lambda text: text[:20],
)
def test_configurations_that_cannot_be_read_are_refused(adapter: Adapter, text: str) -> None:
    adapter.expected()
    (adapter.folder / CONFIG_FILE).write_text(text)
    refused(adapter.named(), RefusalReason.CONFIGURATION_UNREADABLE, CONFIG_FILE)


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_missing_keys_are_named(adapter: Adapter, key: str) -> None:
    del adapter.configuration[key]
    refused(adapter.expected(), RefusalReason.CONFIGURATION_UNREADABLE, key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", 1),
        *(("r", each) for each in ("4", 0, -1, 4.0, True, None, 10**400)),
        *(("lora_alpha", each) for each in ("8", None, float("nan"), float("inf"), 1e30, 10**400)),
        ("rank_pattern", []),
        ("rank_pattern", {"q_proj": "4"}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"q_proj": None}),
        ("alpha_pattern", {"q_proj": float("nan")}),
        ("target_modules", 7),
        ("use_dora", "yes"),
        ("bias", None),
        ("init_lora_weights", [1]),
        ("modules_to_save", {"a": 1}),
    ],
)
def test_wrong_types_are_named(adapter: Adapter, key: str, value: object) -> None:
    adapter.configuration[key] = value
    refused(adapter.expected(), RefusalReason.CONFIGURATION_UNREADABLE, key)


# What vLLM cannot serve


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "LOHA"])
def test_other_kinds_are_refused(adapter: Adapter, kind: str) -> None:
    adapter.configuration = {"peft_type": kind}
    refused(adapter.expected(), RefusalReason.NOT_LORA, kind)


def test_dora_is_refused_with_the_way_to_serve_it(adapter: Adapter) -> None:
    adapter.configuration["use_dora"] = True
    refused(adapter.expected(), RefusalReason.DORA_NOT_SERVABLE, "strategy: Merged")


@pytest.mark.parametrize("end", ["", ".weight"])
def test_dora_is_refused_by_its_tensors_too(adapter: Adapter, end: str) -> None:
    adapter.tensors[f"base_model.model.{Q}.lora_magnitude_vector{end}"] = Stored((8,))
    refused(adapter.expected(), RefusalReason.DORA_NOT_SERVABLE, "strategy: Merged")


def test_whole_modules_are_refused(adapter: Adapter) -> None:
    adapter.configuration["modules_to_save"] = ["lm_head"]
    refused(adapter.expected(), RefusalReason.MODULES_TO_SAVE, "lm_head")


@pytest.mark.parametrize(("key", "value"), [("bias", "all"), ("lora_bias", True)])
def test_biases_are_refused(adapter: Adapter, key: str, value: object) -> None:
    adapter.configuration[key] = value
    refused(adapter.expected(), RefusalReason.BIAS_NOT_SERVABLE, key, str(value))


def test_biases_are_refused_by_their_tensors_too(adapter: Adapter) -> None:
    adapter.tensors[f"base_model.model.{Q}.lora_B.bias"] = Stored((8,))
    refused(adapter.expected(), RefusalReason.BIAS_NOT_SERVABLE, Q)


@pytest.mark.parametrize(
    "name", ["pissa", "PiSSA", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga", "?"]
)
def test_initialisations_that_change_the_base_are_refused(adapter: Adapter, name: str) -> None:
    adapter.configuration["init_lora_weights"] = name
    refused(adapter.expected(), RefusalReason.INITIALISATION_NOT_SERVABLE, name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [1]),
        ("use_qalora", True),
        ("use_bdlora", {"target_modules_bd_a": []}),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("trainable_token_indices", [1]),
        ("megatron_config", {"a": 1}),
    ],
)
def test_foreign_layouts_are_refused(adapter: Adapter, key: str, value: object) -> None:
    adapter.configuration[key] = value
    refused(adapter.expected(), RefusalReason.LAYOUT_NOT_SERVABLE, key)


@pytest.mark.parametrize("option", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize(
    "key", ["(a+)+b", "(", "a{9}", "(?:(a|b)+)*", ".*.*.*", "[", "x" * 300, "", "(a)(b)(c)", "\n"]
)
def test_patterns_that_could_run_for_ever_are_refused(
    adapter: Adapter, option: str, key: str
) -> None:
    adapter.configuration[option] = {key: 4}
    refused(adapter.expected(), RefusalReason.LAYOUT_NOT_SERVABLE, option)


def test_patterns_that_take_too_long_are_given_up(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.sidecar.adapter_configuration.LONGEST_MATCHING_SECONDS", 0)
    adapter.configuration["rank_pattern"] = {"a": 4}
    refused(adapter.expected(), RefusalReason.LAYOUT_NOT_SERVABLE, "1 keys")


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
    refused(adapter.expected(), RefusalReason.NO_WEIGHTS, WEIGHTS_FILE)


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


# Whatever else may come


def refusal_of(adapter: Adapter, base: BaseModel) -> Refused | None:
    """Anything else that is raised fails the test."""
    try:
        examine(adapter.named(), base, 16)
    except Refused as refusal:
        return refusal
    return None


def spoil(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def spoilable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, BaseModel]:
    folder = tmp_path_factory.mktemp("spoiled")
    return Adapter(folder / "claim"), base_model(folder / "base")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(artifact.ADAPTER_FILES),
    edits=st.lists(
        st.tuples(st.integers(0, 1300), st.binary(max_size=3), st.integers(0, 3)), max_size=4
    ),
)
def test_spoiled_files_only_ever_lead_to_a_refusal(
    spoilable: tuple[Adapter, BaseModel], name: str, edits: list[tuple[int, bytes, int]]
) -> None:
    adapter, base = spoilable
    adapter.expected()

    def change(content: bytearray) -> None:
        for position, inserted, removed in edits:
            content[position : position + removed] = inserted

    spoil(adapter.folder / name, change)
    refusal = refusal_of(adapter, base)
    assert refusal is None or refusal.message.isprintable()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(changed=st.dictionaries(st.sampled_from(sorted(Adapter(Path()).configuration)), JSON_VALUES))
def test_strange_configurations_only_ever_lead_to_a_refusal(
    spoilable: tuple[Adapter, BaseModel], changed: dict[str, Any]
) -> None:
    adapter, base = spoilable
    strange = Adapter(adapter.root, adapter.configuration | changed)
    strange.expected()
    refusal = refusal_of(strange, base)
    assert refusal is None or refusal.message.isprintable()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    header=st.dictionaries(
        st.sampled_from([half_name(Q, "A"), half_name(Q, "B"), "__metadata__", "x"]),
        JSON_VALUES
        | st.fixed_dictionaries({"dtype": JSON_VALUES, "shape": JSON_VALUES})
        | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "F4", "?"]),
                "shape": st.lists(st.integers(-1, 9), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2),
            }
        ),
    )
)
def test_strange_headers_only_ever_lead_to_a_refusal(
    spoilable: tuple[Adapter, BaseModel], header: dict[str, Any]
) -> None:
    adapter, base = spoilable
    adapter.expected()
    content = with_header(json.dumps(header).encode(), bytes(64))
    (adapter.folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(Refused) as caught:
        examine(adapter.named(), base, 16)
    assert caught.value.message.isprintable()


def test_a_header_of_many_tensors_is_read_in_bounded_time(adapter: Adapter) -> None:
    adapter.expected()
    tensors = {f"t{number}": Stored((0,)) for number in range(5_000)}
    (adapter.folder / WEIGHTS_FILE).write_bytes(safetensors(tensors))
    expected = adapter.named()
    with quick_and_small():
        refused(expected, RefusalReason.UNKNOWN_MODULE)
