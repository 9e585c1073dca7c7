"""The files that rows come in: what is read, what is refused, and where a mistake is said to be."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.trainer_contract import Reason
from tunesmith_trainer.data import json_rows, rows, text_file
from tunesmith_trainer.data.rows import read_rows
from tunesmith_trainer.failure import TrainerError

ROWS = [
    {"instruction": f"say {number}", "input": "", "output": f'"{number}",\nin two lines'}
    for number in range(3)
]


def json_lines(of: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in of).encode()


def comma_separated(of: list[Any]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, of[0].keys())
    writer.writeheader()
    writer.writerows(of)
    return text.getvalue().encode()


def parquet(of: list[Any]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    sink = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(of), sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[list[Any]], bytes]] = {
    "rows.jsonl": json_lines,
    "rows": json_lines,
    "ROWS.JSON": lambda of: json.dumps(of, indent=2).encode(),
    "lines.json": json_lines,
    "rows.csv": comma_separated,
    "rows.parquet": parquet,
    "rows.jsonl.gz": lambda of: gzip.compress(json_lines(of)),
    "rows.json.gz": lambda of: gzip.compress(json.dumps(of).encode()),
    "rows.csv.gz": lambda of: gzip.compress(comma_separated(of)),
}


def read(path: Path) -> list[dict[str, Any]]:
    return [row.fields for row in read_rows(path)]


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(TrainerError) as raised:
        read(path)
    assert raised.value.reason is Reason.DATASET_MALFORMED
    return raised.value.message


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_come_out_of_every_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name](ROWS))
    assert read(path) == ROWS


@pytest.mark.parametrize("name", [name for name in WRITERS if "csv" not in name])
def test_nested_rows_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    nested = [{"messages": [{"role": "user", "content": "ü"}, {"role": "a", "content": "[1"}]}]
    path = tmp_path / name
    path.write_bytes(WRITERS[name](nested))
    assert read(path) == nested


def test_a_list_in_a_csv_cell_is_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    messages = [{"role": "user", "content": "a, b"}]
    path.write_bytes(comma_separated([{"messages": json.dumps(messages), "note": "[x]"}]))
    assert read(path) == [{"messages": messages, "note": "[x]"}]


def test_an_array_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a piece ends: in a character, in a number, before a comma."""
    path = tmp_path / "rows.json"
    many = [{"number": 10**number, "text": "é€😀" * number} for number in range(9)]
    path.write_text(json.dumps(many, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    for size in (4, 5, 7, 64, 1000):
        monkeypatch.setattr(json_rows, "PIECE_BYTES", size)
        assert read(path) == many, size


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{}\n{"a": }\n', "a.jsonl line 2: invalid JSON at column 7"),
        ("a.jsonl.gz", gzip.compress(b"{}\n\n[]\n"), "a.jsonl.gz line 3: a list where"),
        ("a.json", b'[{}, {"a": 1,}]', "a.json row 2: invalid JSON"),
        ("a.json", b"[{} {}]", "a.json row 2: found '{}]' where a comma"),
        ("a.json", b"[{}, 7]", "a.json row 2: a int where a JSON object belongs"),
        ("a.json", b"[{}", "a.json row 2: found 'the end of the file' where a comma"),
        ("a.json", b"[{", "a.json row 1: invalid JSON"),
        ("a.json", b'[{"a": "\xff"}]', "a.json row 1: not UTF-8"),
        ("a.json", b'{\n  "a": 1\n}', "a.json line 1: invalid JSON at column 1"),
        ("a.csv", b"a,b\n1,2\n\n3\n", "a.csv line 4: 1 cells where the header has 2"),
        ("a.csv", b'a,b\n"1\n2",3\n4\n', "a.csv line 4: 1 cells where the header has 2"),
        ("a.csv", b'a,b\n"1"x,2\n', "a.csv line 2: no valid CSV"),
        ("a.csv", b"a,a\n1,2\n", "a.csv line 1: the header must name every column"),
        ("a.csv", b"a;b\n1;2\n", "a.csv line 1: one column with ';' or tabs"),
        ("a.csv", b"messages\n[1\n", 'a.csv line 2: "messages" is no JSON'),
        ("a.csv", b"a\n\xff\n", "a.csv line 2: not UTF-8"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read as Parquet"),
        ("a.jsonl.gz", b"{}\n", "a.jsonl.gz cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 99)[:-9], "a.jsonl.gz cannot be unpacked"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    assert refusal(tmp_path / name, content).startswith(said)


def test_a_mistake_in_parquet_is_named_with_its_row(tmp_path: Path) -> None:
    content = parquet([{"output": "fine", "input": b""}, {"output": "b", "input": b"\xff"}])
    assert "a.parquet row 1: Object of type bytes" in refusal(tmp_path / "a.parquet", content)


def test_columns_that_no_format_has_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet([{"prompt": "a", "completion": "b", "image": b"\xff"}]))
    assert read(path) == [{"prompt": "a", "completion": "b"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"a": "' + b"x" * 2000 + b'"}'),
        ("a.json", b'[{"a": "' + b"x" * 2000 + b'"}]'),
        ("a.csv", b"a\n" + b"x" * 2000),
        ("a.csv", b'a\n"' + b"x\n" * 2000),
    ],
)
def test_a_row_without_end_is_refused_before_it_is_in_memory(
    tmp_path: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("rows", "text_file", "json_rows", "csv_rows"):
        monkeypatch.setattr(f"tunesmith_trainer.data.{module}.LONGEST_ROW_BYTES", 500)
    monkeypatch.setattr(json_rows, "PIECE_BYTES", 100)
    assert "longer than 16 MiB" in refusal(tmp_path / name, content)
    assert rows.LONGEST_ROW_BYTES == 500


def test_a_file_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "ALWAYS_ALLOWED_BYTES", 1000)
    content = b'{"a": 1}\n' * 1_000_000
    bomb = gzip.compress(content)
    assert len(bomb) * 300 < len(content)
    assert "unpacks to more than 200 times its size" in refusal(tmp_path / "a.jsonl.gz", bomb)
