"""``tunesmith-trainer fetch-tasks``: a benchmark's data in a folder, checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.evaluation_suite import Benchmark
from tunesmith.api.trainer_contract import ExitCode, Reason

pytest.importorskip("lm_eval")

from tunesmith_trainer.benchmarks import fetch, prepared, tasks
from tunesmith_trainer.evaluate.benchmark import benchmark_suite
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.main import main, parse

from tests.unit.trainer.mmlu_data import write_mmlu

#: One subject is a task of its own, and quick.
TASK = "mmlu_anatomy"
REMEDY = f"Run `tunesmith-trainer fetch-tasks --task {TASK} --output FOLDER`"


@pytest.fixture(autouse=True)
def _small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.FOLDERS, TASK, "mmlu/default")
    monkeypatch.setitem(tasks.FOLDERS, "mmlu_stem", "mmlu/default")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mmlu(tmp_path_factory.mktemp("hub"), ["anatomy"], [4])


def run(output: Path, *more: str) -> int:
    return main(["fetch-tasks", "--task", TASK, "--output", str(output), *more])


@pytest.fixture
def folder(hub: Path, tmp_path: Path) -> Path:
    assert run(tmp_path / "data", "--from", str(hub)) == ExitCode.SUCCEEDED
    return tmp_path / "data"


def open_suite(folder: Path | None) -> Any:
    uri = "pvc://bench/data" if folder else None
    return benchmark_suite("mmlu", Benchmark(name=TASK, data=uri), folder)


def test_a_plan_is_still_the_default() -> None:
    assert parse(["--plan", "plan.json"]).command is None


def test_the_manifest_lists_what_is_there(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (dataset,) = manifest["datasets"]
    assert (manifest["tasks"], manifest["lmEvalVersion"]) == ([TASK], tasks.lm_eval_version())
    assert (dataset["path"], dataset["name"]) == ("cais/mmlu", "anatomy")
    assert {name: split["rows"] for name, split in dataset["splits"].items()} == {
        "test": 4,
        "dev": 5,
    }
    files = {split["file"]: split["sha256"] for split in dataset["splits"].values()}
    found = {str(p.relative_to(folder)): prepared.sha256_of(p) for p in folder.rglob("*.parquet")}
    assert files == found
    assert len(open_suite(folder).questions) == 4


def test_a_second_run_fetches_nothing(
    folder: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "manifest.json").read_bytes()
    monkeypatch.setattr(fetch.Fetcher, "_read", lambda *_: pytest.fail("fetched again"))
    assert run(folder, "--from", str(hub)) == ExitCode.SUCCEEDED
    assert (folder / "manifest.json").read_bytes() == before


def test_a_run_after_an_interruption_completes_the_folder(folder: Path, hub: Path) -> None:
    (path,) = folder.rglob("dev.parquet")
    path.unlink()
    assert run(folder, "--from", str(hub)) == ExitCode.SUCCEEDED
    assert len(open_suite(folder).questions) == 4


def test_nothing_half_written_is_left(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunesmith_trainer.benchmarks.fetch.make_durable", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(TASK, tmp_path / "data", hub)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: path.unlink(), r"anatomy/test\.parquet is missing"),
        (lambda path: path.write_bytes(b"PAR1"), r"anatomy/test\.parquet is not what manifest"),
    ],
)
def test_a_missing_or_changed_file_is_named(folder: Path, damage: Any, named: str) -> None:
    (path,) = folder.rglob("test.parquet")
    damage(path)
    expect_data_missing(folder, f"pvc://bench/data: .*{named}")


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    expect_data_missing(tmp_path, "pvc://bench/data: manifest.json is missing")


def test_without_data_and_without_a_network_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    expect_data_missing(None, "cais/mmlu anatomy is not here")


def expect_data_missing(folder: Path | None, said: str) -> None:
    with pytest.raises(TrainerError, match=said) as raised:
        open_suite(folder)
    assert raised.value.reason is Reason.BENCHMARK_DATA_MISSING
    assert REMEDY in raised.value.message


def test_a_repository_that_was_not_copied_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(tmp_path / "data", "--from", str(tmp_path))
    assert code == ExitCode.DATA_UNREACHABLE
    assert "put the hub's repository cais/mmlu there" in capsys.readouterr().err
