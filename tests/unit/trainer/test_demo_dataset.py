"""The demonstration's dataset: made of package records, the same every time."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from tunesmith.api.trainer_contract import PlannedDataset
from tunesmith_trainer.data.dataset import read_dataset

SCRIPT = Path(__file__).parents[3] / "examples" / "demo" / "make_dataset.py"

RECORDS = "\n\n".join(
    f"Package: lib{number}\nVersion: 1.{number}-{number}+b1\nArchitecture: all\nSection: libs\n"
    "Tag: role::shared-lib,\n implemented-in::c"
    for number in range(60)
)


@pytest.fixture
def make_dataset() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_dataset", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def write(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, path: Path, *arguments: str
) -> list[str]:
    monkeypatch.setattr(module, "package_records", lambda: RECORDS)
    monkeypatch.setattr("sys.argv", ["make_dataset.py", str(path), *arguments])
    module.main()
    return path.read_text().splitlines()


def test_the_same_seed_gives_the_same_rows(
    make_dataset: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = write(make_dataset, monkeypatch, tmp_path / "a", "--count", "20")
    second = write(make_dataset, monkeypatch, tmp_path / "b", "--count", "20")
    other = write(make_dataset, monkeypatch, tmp_path / "c", "--count", "20", "--seed", "8")
    assert first == second != other
    assert len(first) == 20


def test_every_value_of_an_answer_stands_in_its_question(
    make_dataset: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write(make_dataset, monkeypatch, path)
    rows = read_dataset(path, PlannedDataset(uri="pvc://data/rows.jsonl"))
    assert len(rows) == 60
    for row in rows:
        answer = json.loads(row.answer)
        assert set(answer) == {"name", "upstream", "revision", "arch", "section"}
        assert all(value in row.question[-1].content for value in answer.values())
