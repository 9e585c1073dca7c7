"""Preflight: no file, however large or strange, takes long or leads to more than a refusal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_FILES, ADAPTER_WEIGHTS
from tunesmith.api.reasons import RefusalReason
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.preflight import examine
from tunesmith.sidecar.refusal import Refused

from tests.unit.bounds import quick_and_small
from tests.unit.operator.adapters import (
    Adapter,
    Q,
    Stored,
    base_model,
    half_name,
    refused,
    safetensors,
    with_header,
)

# Giants


@pytest.mark.parametrize("header", [False, True])
def test_a_giant_of_nothing_is_refused_at_once(adapter: Adapter, header: bool) -> None:
    """Also behind a good header."""
    expected = adapter.expected()
    if not header:
        os.truncate(adapter.folder / ADAPTER_WEIGHTS, 0)
    os.truncate(adapter.folder / ADAPTER_WEIGHTS, 10 * 1024**3)
    with quick_and_small():
        refused(expected, RefusalReason.WEIGHTS_UNREADABLE, ADAPTER_WEIGHTS)


def test_a_whole_model_is_refused_before_it_is_read(adapter: Adapter) -> None:
    expected = adapter.expected()
    size = 100 * 1024**3
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    content = with_header(json.dumps(header).encode())
    (adapter.folder / ADAPTER_WEIGHTS).write_bytes(content)
    os.truncate(adapter.folder / ADAPTER_WEIGHTS, len(content) + size)
    with quick_and_small():
        refused(expected, RefusalReason.WEIGHTS_UNREADABLE, "whole model")


def test_a_giant_configuration_is_refused_at_once(adapter: Adapter) -> None:
    expected = adapter.expected()
    os.truncate(adapter.folder / ADAPTER_CONFIG, 10 * 1024**3)
    with quick_and_small():
        refused(expected, RefusalReason.CONFIGURATION_UNREADABLE, "larger than 1048576")


def test_a_header_of_many_tensors_is_read_in_bounded_time(adapter: Adapter) -> None:
    adapter.expected()
    tensors = {f"t{number}": Stored((0,)) for number in range(5_000)}
    (adapter.folder / ADAPTER_WEIGHTS).write_bytes(safetensors(tensors))
    expected = adapter.named()
    with quick_and_small():
        refused(expected, RefusalReason.UNKNOWN_MODULE)


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
    name=st.sampled_from(ADAPTER_FILES),
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
    with quick_and_small():
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
    with quick_and_small():
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
    (adapter.folder / ADAPTER_WEIGHTS).write_bytes(content)
    with quick_and_small(), pytest.raises(Refused) as caught:
        examine(adapter.named(), base, 16)
    assert caught.value.message.isprintable()
