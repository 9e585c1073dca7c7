"""Datasets that nobody wrote in good faith, or that a copy has spoiled: a sentence, in bounds."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from tunesmith.api.trainer_contract import PlannedDataset, Reason
from tunesmith_trainer.data import dataset, parquet
from tunesmith_trainer.data.dataset import read_dataset
from tunesmith_trainer.data.rows import read_rows
from tunesmith_trainer.failure import TrainerError

from tests.unit.bounds import quick_and_small
from tests.unit.trainer.bounds import measured
from tests.unit.trainer.test_files import ROWS, WRITERS

#: Of any file, however it is made. A line may have 16 MiB, which is much as a list of lists.
MOST_BYTES = 700 * 1024**2
MOST_SECONDS = 10


def refused_in_bounds(path: Path) -> str:
    ended = measured(lambda: read_dataset(path, PlannedDataset(uri="pvc://data/rows")))
    assert ended.told is not None, "it was taken"
    reason, message = ended.told
    assert reason is Reason.DATASET_MALFORMED
    assert ended.processor_seconds < MOST_SECONDS
    assert ended.more_bytes < MOST_BYTES
    return message


def told(path: Path) -> str:
    """The sentence about a file; "nothing" where its rows are taken. All else fails the test."""
    try:
        read_dataset(path, PlannedDataset(uri="pvc://data/rows"))
    except TrainerError as error:
        return error.message
    return "nothing"


# Spoiled ones

EDITS = st.lists(
    st.tuples(st.integers(0, 1500), st.binary(max_size=4), st.integers(0, 6)),
    min_size=1,
    max_size=4,
)


@seed(7)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(WRITERS)), edits=EDITS)
def test_spoiled_bytes_lead_to_rows_or_to_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[int, bytes, int]]
) -> None:
    content = bytearray(WRITERS[name](ROWS))
    for position, inserted, removed in edits:
        place = position % len(content)
        content[place : place + removed] = inserted
    path = tmp_path_factory.getbasetemp() / f"spoiled-{name}"
    path.write_bytes(content)
    with quick_and_small():
        assert len(told(path)) < 2000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["messages", "conversations", "instruction", "input", "output", "prompt", "completion"]
)


@seed(7)
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(row=st.dictionaries(KEYS, JSON_VALUES, max_size=3) | JSON_VALUES)
@example(row={"messages": [{"role": {}, "content": []}]})
@example(row={"prompt": float("nan"), "completion": float("inf")})
def test_whatever_json_a_row_is_it_is_taken_or_named(
    tmp_path_factory: pytest.TempPathFactory, row: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "strange.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with quick_and_small():
        message = told(path)
    assert message.startswith(("strange.jsonl line 1: ", "nothing"))


DEEP = "[" * 50_000
DIGITS = "9" * 5_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"messages": ' + DEEP, "line 1: invalid JSON (lists and objects nested"),
        ("a.jsonl", '{"a":' * 50_000, "line 1: invalid JSON (lists and objects nested"),
        ("a.jsonl", f'{{"a": {DIGITS}}}', "line 1: invalid JSON (a number of thousands of digits"),
        (
            "a.json",
            f'[{{"prompt": "a", "completion": "b"}},{DEEP}',
            "row 2: invalid JSON (lists and objects nested",
        ),
        ("a.json", f"[{DIGITS}]", "row 1: invalid JSON (a number of thousands of digits"),
        ("a.csv", f"messages\n{DEEP}\n", '"messages" is no JSON (lists and objects nested'),
        ("a.csv", f"messages\n{DIGITS}\n", '"messages" is no JSON (a number of thousands'),
        ("a.jsonl", "\0" * 100, "line 1: invalid JSON at column 1"),
        ("a.jsonl", '{"a": "\0"}', "line 1: invalid JSON"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), "line 1: not UTF-8"),
        ("a.jsonl", '{"prompt": "ä"}'.encode("latin-1"), "line 1: not UTF-8"),
        ("a.jsonl", '{"a": "\\ud800"}', "half a character"),
        ("a.jsonl", "NaN", "a float where a JSON object belongs"),
        ("a.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", "cannot be read as Parquet"),
        # A footer that is said to be larger than any file.
        ("a.parquet", b"PAR1" + b"\0" * 8 + b"\xff\xff\xff\x7fPAR1", "cannot be read as Parquet"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_stops_a_parser_is_named_as_a_mistake_of_the_file(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refused_in_bounds(path)


def test_of_keys_that_are_there_twice_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "prompt": "b", "completion": "c"}\n')
    assert [row.fields for row in read_rows(path)] == [{"prompt": "b", "completion": "c"}]


# Giants


def endless_line(path: Path) -> None:
    """Ten gigabytes without a line break, of which the disk holds none."""
    path.touch()
    os.truncate(path, 10 * 1024**3)


def packed_line(path: Path) -> None:
    """The same, packed: ten gigabytes of one letter in ten megabytes."""
    block = gzip.compress(b"x" * 64 * 1024**2)
    with path.open("wb") as file:
        for _ in range(160):
            file.write(block)


def packed_lines(path: Path) -> None:
    """Ten gigabytes of short lines."""
    block = gzip.compress(b" \n" * 32 * 1024**2)
    with path.open("wb") as file:
        for _ in range(160):
            file.write(block)


def lists_of_nothing(path: Path) -> None:
    """The largest row there may be, made of as many values as fit."""
    path.write_bytes(b'{"a":[' + b"[]," * (5 * 1024**2) + b"[]]}")


def one_row_of_columns(path: Path) -> None:
    path.write_text(",".join(f"{number:x}" for number in range(2_000_000)) + "\n1\n")


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("a.jsonl", endless_line, "longer than 16 MiB"),
        ("a.json", endless_line, "line 1: longer than 16 MiB"),
        ("a.csv", endless_line, "longer than 16 MiB"),
        ("a.parquet", endless_line, "cannot be read as Parquet"),
        ("a.jsonl.gz", packed_line, "longer than 16 MiB"),
        ("a.csv.gz", packed_line, "longer than 16 MiB"),
        ("a.json.gz", packed_lines, "1,000,000 blank lines before it"),
        ("a.jsonl", lists_of_nothing, "line 1: found a: write"),
        ("a.csv", one_row_of_columns, "1 cells where the header has 2000000"),
    ],
)
def test_a_giant_is_refused_within_bounds(
    tmp_path: Path, name: str, write: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / name
    write(path)
    assert path.stat().st_blocks * 512 < 32 * 1024**2
    assert said in refused_in_bounds(path)


def test_more_rows_than_anybody_needs_are_not_taken_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MOST_ROWS", 1000)
    path = tmp_path / "a.jsonl.gz"
    row = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    path.write_bytes(gzip.compress(row.encode() * 100_000))
    assert "line 1001: more than 1,000 rows" in told(path)


# Parquet, of which a few hundred bytes can hold gigabytes


def repeated_value(copies: int) -> bytes:
    """One long text, written once, which so many rows refer to: eight megabytes each.

    Far more than the bound, as what the process has once used and freed is there for the taking.
    """
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    text = pyarrow.array(["x" * 8 * 1024**2])
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * copies), text)
    sink = io.BytesIO()
    table = pyarrow.table({"prompt": column, "completion": ["a"] * copies})
    write_table(table, sink, compression="zstd", dictionary_pagesize_limit=2**24)
    return sink.getvalue()


def empty_list(length: int) -> bytes:
    """One row of nothing, millions of times."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    nothing = pyarrow.nulls(length, pyarrow.string())
    sink = io.BytesIO()
    table = pyarrow.table({"messages": pyarrow.ListArray.from_arrays([0, length], nothing)})
    write_table(table, sink, compression="zstd")
    return sink.getvalue()


@pytest.mark.parametrize("content", [lambda: repeated_value(64), lambda: empty_list(8 * 1024**2)])
def test_parquet_that_unpacks_to_far_more_than_it_says_is_refused(
    tmp_path: Path, content: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MOST_MEMORY_BYTES", 48 * 1024**2)
    path = tmp_path / "a.parquet"
    path.write_bytes(content())
    assert path.stat().st_size < 10_000
    assert "unpacks to rows of more than" in refused_in_bounds(path)


def test_after_a_refusal_there_is_memory_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MOST_MEMORY_BYTES", 48 * 1024**2)
    path = tmp_path / "a.parquet"
    path.write_bytes(repeated_value(64))
    with pytest.raises(TrainerError, match="unpacks to rows"):
        list(read_rows(path))
    assert len(bytearray(random.randbytes(1) * 256 * 1024**2)) == 256 * 1024**2
