"""Preflight: where an adapter may lie; files that are missing, foreign, changed or unreadable."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunesmith.api.reasons import RefusalReason
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.preflight import Expected, examine
from tunesmith.sidecar.refusal import Refused

from tests.unit.operator.adapters import Adapter, refused, with_header

# Where it lies


def test_links_within_the_volume_are_followed(adapter: Adapter, base: BaseModel) -> None:
    expected = adapter.expected()
    link = adapter.root / "latest"
    link.symlink_to(adapter.folder)
    assert examine(Expected(link, expected.digest, adapter.root), base, 16)


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


@pytest.mark.parametrize("missing", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
def test_missing_files_are_named(adapter: Adapter, missing: str) -> None:
    expected = adapter.expected()
    (adapter.folder / missing).unlink()
    refused(expected, RefusalReason.NOT_FOUND, missing)


@pytest.mark.parametrize("special", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
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


@pytest.mark.parametrize("name", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
def test_a_files_link_does_not_lead_outside(adapter: Adapter, tmp_path: Path, name: str) -> None:
    expected = adapter.expected()
    (adapter.folder / name).rename(tmp_path / name)
    (adapter.folder / name).symlink_to(tmp_path / name)
    refused(expected, RefusalReason.OUTSIDE_ITS_VOLUME, name)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "weights.pth"])
def test_weights_that_can_carry_programs_are_refused(adapter: Adapter, name: str) -> None:
    expected = adapter.expected()
    (adapter.folder / ADAPTER_WEIGHTS).rename(adapter.folder / name)
    refused(expected, RefusalReason.NOT_SAFETENSORS, name, "save_pretrained")


# What it holds


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
    (adapter.folder / ADAPTER_WEIGHTS).write_bytes(content)
    refused(adapter.named(), RefusalReason.WEIGHTS_UNREADABLE, ADAPTER_WEIGHTS)


def test_a_copy_that_was_cut_short_is_refused_as_such(adapter: Adapter) -> None:
    expected = adapter.expected()
    os.truncate(adapter.folder / ADAPTER_WEIGHTS, 900)
    refused(expected, RefusalReason.WEIGHTS_UNREADABLE, "cut short", "copy the adapter again")
