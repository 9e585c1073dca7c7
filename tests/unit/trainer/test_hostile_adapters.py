"""Adapters that nobody made in good faith, or that a copy has spoiled: a sentence, in bounds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_FILES, ADAPTER_WEIGHTS
from tunesmith.api.trainer_contract import Reason

pytest.importorskip("peft")

import torch
from tunesmith_trainer import adapter_files
from tunesmith_trainer.evaluate.sides import attach_adapter
from tunesmith_trainer.model import load_base_model

from tests.unit.trainer.bounds import Ended, measured

URI = "pvc://adapters/tuned"
MOST_BYTES = 256 * 1024**2
MOST_SECONDS = 10
#: Tries every way to cut a name in pieces before it gives up.
ENDLESS = "(.+)+!"


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Any:
    return load_base_model(tiny_model, "pvc://models/tiny", torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def good(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model

    model = load_base_model(tiny_model, "pvc://models/tiny", torch.float32, torch.device("cpu"))
    folder = tmp_path_factory.mktemp("adapters") / "tuned"
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def adapter(good: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good, tmp_path / "tuned"))


def configure(folder: Path, **changes: object) -> None:
    said = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(said | changes))


def attached(base: Any, adapter: Path) -> Ended:
    """In a process of its own: the base model stays as it is."""
    ended = measured(lambda: attach_adapter(base, adapter, URI))
    assert ended.processor_seconds < MOST_SECONDS
    assert ended.more_bytes < MOST_BYTES
    return ended


def refused(base: Any, adapter: Path, said: str) -> None:
    ended = attached(base, adapter)
    assert ended.told is not None, "it was taken"
    reason, message = ended.told
    assert reason is Reason.MODEL_UNUSABLE
    assert said in message
    assert URI in message
    assert len(message) < 1000


def test_a_good_one_is_taken(base: Any, adapter: Path) -> None:
    assert attached(base, adapter).told is None


# Weights


def with_length(length: int) -> Callable[[bytes], bytes]:
    return lambda content: length.to_bytes(8, "little") + content[8:]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: b"", "it has only 0 bytes"),
        (lambda content: content[:-9], "is cut short"),
        (lambda content: content + b"more", "has 4 bytes after its last tensor"),
        (lambda content: b"\xff" * len(content), "its header would have 18446744073709551615"),
        (with_length(8 * 1024**3), "its header would have 8589934592 bytes"),
        (with_length(16 * 1024**2), "is cut short: its header has 16777216 bytes"),
        (lambda content: content.replace(b"[4,64]", b"[4,65]"), "which do not fit its shape"),
        (lambda content: content[:8] + b"[" * (len(content) - 8), "has a corrupt header"),
    ],
)
def test_spoiled_weights_are_named(
    base: Any, adapter: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    weights = adapter / ADAPTER_WEIGHTS
    weights.write_bytes(spoil(weights.read_bytes()))
    refused(base, adapter, f"{ADAPTER_WEIGHTS} of {URI} ")
    refused(base, adapter, said)


def test_a_header_of_gigabytes_of_nothing_is_not_read(base: Any, adapter: Path) -> None:
    weights = adapter / ADAPTER_WEIGHTS
    weights.write_bytes((8 * 1024**3).to_bytes(8, "little"))
    os.truncate(weights, 10 * 1024**3)
    refused(base, adapter, "its header would have 8589934592 bytes")


def test_weights_of_other_layers_are_not_taken_for_those_that_lack(
    base: Any, adapter: Path
) -> None:
    """PEFT would only warn."""
    weights = adapter / ADAPTER_WEIGHTS
    weights.write_bytes(weights.read_bytes().replace(b".layers.0.", b".layers.7."))
    refused(base, adapter, "does not fit the base model (Found missing adapter keys")


def test_a_whole_model_is_not_read(base: Any, adapter: Path) -> None:
    size = 100 * 1024**3
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    weights = adapter / ADAPTER_WEIGHTS
    weights.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    os.truncate(weights, 8 + len(header) + size)
    refused(base, adapter, "if it is a whole model")


# Configurations


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe\0", "is no JSON"),
        (b"{" * 1000, "is no JSON"),
        (b'{"a":' * 100_000, "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"r": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b"[]", "is no JSON object"),
        (b"[" + b"[],\n" * 2_000_000 + b"[]]", "is larger than 1048576 bytes"),
        (b"{}", "has peft_type None, not LORA"),
        (b'{"peft_type": "NONSENSE"}', "has peft_type 'NONSENSE', not LORA"),
        (b'{"peft_type": ["LORA"]}', "has peft_type ['LORA'], not LORA"),
    ],
    ids=lambda each: repr(each[:20]),
)
def test_what_is_no_configuration_is_named(
    base: Any, adapter: Path, content: bytes, said: str
) -> None:
    (adapter / ADAPTER_CONFIG).write_bytes(content)
    refused(base, adapter, f"{ADAPTER_CONFIG} of {URI} {said}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 10**9}, "has rank 1000000000 in r or rank_pattern"),
        ({"r": 10**300}, "in r or rank_pattern"),
        ({"r": -1}, "has rank -1"),
        ({"r": "4"}, "has rank '4'"),
        ({"r": True}, "has rank True"),
        ({"r": 900_000}, "describes 403200000 numbers for it, and"),
        ({"rank_pattern": {"q_proj": 10**9}}, "has rank 1000000000 in r or rank_pattern"),
        ({"rank_pattern": {"q_proj": 900_000}}, "describes 230400768 numbers"),
        ({"rank_pattern": {".*": 900_000}}, "describes 403200000 numbers"),
        ({"rank_pattern": ["q_proj"]}, "has a rank_pattern that is no object"),
        ({"target_modules": ".*_proj"}, "numbers for it, and"),
        ({"r": 900_000, "target_modules": "all-linear"}, "numbers for it, and"),
        ({"r": 900_000, "target_modules": [], "target_parameters": ["q_proj.weight"]}, "230400000"),
        ({"target_modules": None}, "has no target_modules"),
        ({"target_modules": "nothing.*"}, "does not fit the base model"),
        ({"target_modules": [7]}, f"{URI}"),
        ({"target_modules": "("}, "has patterns that no name can be compared with"),
        ({"rank_pattern": {"(": 4}}, "has patterns that no name can be compared with"),
        ({"layer_replication": [[0, 2]] * 50_000}, "sets layer_replication"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "sets megatron_config"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_configuration_that_describes_too_much_is_named(
    base: Any, adapter: Path, changes: dict[str, object], said: str
) -> None:
    configure(adapter, **changes)
    refused(base, adapter, said)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ENDLESS},
        {"exclude_modules": ENDLESS},
        {"rank_pattern": {ENDLESS: 4}},
        {"alpha_pattern": {ENDLESS: 4}},
        {"modules_to_save": [ENDLESS]},
        {"layers_to_transform": [0], "layers_pattern": [ENDLESS]},
    ],
    ids=str,
)
def test_a_pattern_without_an_end_is_ended(
    base: Any, adapter: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_files, "LONGEST_MATCHING_SECONDS", 1.0)
    configure(adapter, **changes)
    refused(base, adapter, "take more than 1 s to compare with the names of all modules")


def test_regular_expressions_that_end_are_taken(base: Any, adapter: Path) -> None:
    configure(adapter, target_modules=r"model\.layers\.\d+\.self_attn\.(q|v)_proj")
    assert attached(base, adapter).told is None


# Whatever else may come


@seed(7)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(ADAPTER_FILES),
    edits=st.lists(
        st.tuples(st.integers(0, 1500), st.binary(max_size=3), st.integers(0, 4)),
        min_size=1,
        max_size=3,
    ),
)
def test_an_adapter_with_spoiled_bytes_is_refused_or_taken(
    base: Any,
    good: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    edits: list[tuple[int, bytes, int]],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoiled-adapter"
    shutil.copytree(good, folder, dirs_exist_ok=True)
    content = bytearray((folder / name).read_bytes())
    for position, inserted, removed in edits:
        place = position % len(content)
        content[place : place + removed] = inserted
    (folder / name).write_bytes(content)
    told = attached(base, folder).told
    assert told is None or told[0] is Reason.MODEL_UNUSABLE
