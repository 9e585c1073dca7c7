"""Results in a folder and in a bucket: the same promises in both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest
from tunesmith.api.job_status import Artifact, Progress, TrainingPhase
from tunesmith.api.trainer_contract import PlannedSource, Reason, RemovalPlan, TrainingOutcome
from tunesmith_trainer import artifact, sources
from tunesmith_trainer.failure import Preempted, TrainerError
from tunesmith_trainer.output import OutputStore, open_output, staged, stored_folder
from tunesmith_trainer.output.objects import FILES_FILE
from tunesmith_trainer.removal import remove
from tunesmith_trainer.sources.bucket import Bucket

PLAN = "sha256:" + "1" * 64
BASE = "sha256:" + "2" * 64


@pytest.fixture(params=["folder", "bucket", "whole bucket"])
def target(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> PlannedSource:
    match request.param:
        case "folder":
            return PlannedSource(uri="pvc://claim/team/job", path=str(tmp_path / "team" / "job"))
        case "bucket":
            return PlannedSource(uri=f"s3://{bucket.name}/team/job", credentials="TEST")
        case _:
            return PlannedSource(uri=f"s3://{bucket.name}", credentials="TEST")


@pytest.fixture
def store(target: PlannedSource) -> OutputStore:
    return open_output(target)


def within(target: PlannedSource, name: str) -> PlannedSource:
    path = f"{target.path}/{name}" if target.path else None
    return target.model_copy(update={"uri": f"{target.uri}/{name}", "path": path})


def fill(store: OutputStore, name: str, **files: str) -> None:
    with staged(store, name) as folder:
        for file, text in files.items():
            path = folder / file.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def content(folder: Path | None) -> dict[str, str] | None:
    if folder is None:
        return None
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_is_read_as_it_was_put(store: OutputStore, target: PlannedSource) -> None:
    assert store.folder("one") is None
    fill(store, "one", weights="w", optimizer__state="s")
    assert content(store.folder("one")) == {"weights": "w", "optimizer/state": "s"}
    assert content(stored_folder(within(target, "one"))) == {"weights": "w", "optimizer/state": "s"}
    assert stored_folder(within(target, "two")) is None


def test_a_folder_takes_the_place_of_the_one_before_with_nothing_left_of_it(
    store: OutputStore,
) -> None:
    fill(store, "reports/one", a="1", b="2")
    fill(store, "reports/one", b="3")
    assert content(store.folder("reports/one")) == {"b": "3"}
    assert store.within("reports").names() == ["one"]


def test_a_file_is_read_as_it_was_written(store: OutputStore) -> None:
    assert store.read("plans/one.json") is None
    store.write("plans/one.json", "é")
    store.write("plans/one.json", "ü")
    assert store.within("plans").read("one.json") == "ü".encode()


def test_removed_is_gone_and_a_second_time_is_fine(store: OutputStore) -> None:
    fill(store, "one", a="1")
    fill(store, "two", a="1")
    store.remove("one")
    store.remove("one")
    assert store.names() == ["two"]


@pytest.mark.parametrize("interruption", [RuntimeError("gone"), Preempted()])
def test_an_interruption_while_the_folder_is_filled_leaves_nothing(
    store: OutputStore, scratch: Path, interruption: BaseException
) -> None:
    def fill_half() -> None:
        with staged(store, "one") as folder:
            (folder / "half").write_text("half")
            raise interruption

    with pytest.raises(type(interruption)):
        fill_half()
    assert store.names() == []
    assert list(scratch.iterdir()) == []


def test_what_is_written_is_found_out_to_be_writable_before(
    store: OutputStore, target: PlannedSource
) -> None:
    store.require_writable()
    assert store.names() == []


# --- adapters ----------------------------------------------------------------------------------


def receipt() -> DatasetReceipt:
    return DatasetReceipt(
        digest=PLAN,
        rows=10,
        held_out_rows=1,
        held_out_digest=PLAN,
        duplicate_rows=0,
        train_rows=9,
    )


def writing(weights: bytes, lineage: str = "") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / ADAPTER_WEIGHTS).write_bytes(weights)
        (folder / ADAPTER_CONFIG).write_text("{}")
        (folder / artifact.LINEAGE_FILE).write_text(lineage)

    return write


def remembered(store: OutputStore) -> TrainingOutcome:
    name, digest = artifact.publish(store, writing(b"weights"))
    outcome = TrainingOutcome(
        artifact=Artifact(
            uri=f"{store.uri}/{name}", digest=digest, base_model_digest=BASE, rank=16
        ),
        dataset=receipt(),
        progress=Progress(phase=TrainingPhase.DONE),
    )
    artifact.remember(store, PLAN, outcome)
    return outcome


def test_a_published_adapter_is_recalled_and_opened_by_its_uri(
    store: OutputStore, target: PlannedSource
) -> None:
    outcome = remembered(store)
    assert artifact.recall(store, PLAN, receipt(), BASE) == outcome
    name = outcome.artifact.uri.rsplit("/", 1)[1]
    folder = sources.adapter_folder(within(target, name), outcome.artifact.digest)
    assert adapter_digest(folder) == outcome.artifact.digest


def test_the_same_adapter_published_again_keeps_the_first(store: OutputStore) -> None:
    first, _ = artifact.publish(store, writing(b"weights", "first"))
    second, _ = artifact.publish(store, writing(b"weights", "second"))
    assert first == second
    assert content(store.folder(first))["lineage.json"] == "first"  # type: ignore[index]


def test_a_removal_takes_the_adapter_and_nothing_else(
    store: OutputStore, target: PlannedSource
) -> None:
    outcome = remembered(store)
    name = outcome.artifact.uri.rsplit("/", 1)[1]
    with pytest.raises(TrainerError, match="left alone"):
        remove(RemovalPlan(owner="a/b", adapter=within(target, name), adapter_digest=PLAN))
    remove(
        RemovalPlan(
            owner="a/b", adapter=within(target, name), adapter_digest=outcome.artifact.digest
        )
    )
    assert store.folder(name) is None
    assert artifact.recall(store, PLAN, receipt(), BASE) is None


# --- what only a bucket can do -----------------------------------------------------------------


@pytest.fixture
def objects(bucket: Bucket) -> OutputStore:
    return open_output(PlannedSource(uri=f"s3://{bucket.name}/out", credentials="TEST"))


def keys(bucket: Bucket) -> list[str]:
    return [each.key for each in bucket.listed("")]


def test_the_list_of_files_is_uploaded_last(
    bucket: Bucket, objects: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    upload, write = Bucket.upload, Bucket.write

    def noted_upload(self: Bucket, path: Path, key: str) -> None:
        order.append(key)
        upload(self, path, key)

    def noted_write(self: Bucket, key: str, content: bytes) -> None:
        order.append(key)
        write(self, key, content)

    monkeypatch.setattr(Bucket, "upload", noted_upload)
    monkeypatch.setattr(Bucket, "write", noted_write)
    fill(objects, "one", a="1", z="2")
    assert order == ["out/one/a", "out/one/z", f"out/one/{FILES_FILE}"]


@pytest.mark.parametrize("interruption", [RuntimeError("gone"), Preempted()])
def test_an_interrupted_upload_counts_as_not_there_and_leaves_nothing(
    bucket: Bucket,
    objects: OutputStore,
    interruption: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(objects, "one", a="old", b="old")
    upload = Bucket.upload

    def breaks(self: Bucket, path: Path, key: str) -> None:
        if key.endswith("/b"):
            raise interruption
        upload(self, path, key)

    monkeypatch.setattr(Bucket, "upload", breaks)
    with pytest.raises(type(interruption)):
        fill(objects, "one", a="new", b="new")
    assert objects.folder("one") is None
    assert objects.names() == []
    assert keys(bucket) == []


def test_a_pod_that_was_killed_in_an_upload_leaves_what_counts_as_not_there(
    bucket: Bucket, objects: OutputStore
) -> None:
    bucket.write("out/one/a", b"half of the folder")
    assert objects.folder("one") is None
    assert objects.names() == []
    fill(objects, "one", b="whole")
    assert content(objects.folder("one")) == {"b": "whole"}
    assert keys(bucket) == ["out/one/b", f"out/one/{FILES_FILE}"]


def test_a_folder_with_a_changed_or_missing_file_counts_as_not_there(
    bucket: Bucket, objects: OutputStore, scratch: Path
) -> None:
    fill(objects, "changed", a="1")
    bucket.write("out/changed/a", b"2")
    fill(objects, "missing", a="1")
    bucket.delete(["out/missing/a"])
    assert objects.folder("changed") is None
    assert objects.folder("missing") is None


def test_a_list_that_names_files_outside_the_folder_counts_as_broken(
    bucket: Bucket, objects: OutputStore, scratch: Path
) -> None:
    listing = '{"files": [{"name": "../../evil", "size": 1, "sha256": "0"}]}'
    bucket.write(f"out/one/{FILES_FILE}", listing.encode())
    assert objects.folder("one") is None
    assert not list(scratch.rglob("evil*"))


def test_a_folder_that_was_read_once_is_not_downloaded_again(
    objects: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(objects, "one", a="1")
    first = objects.folder("one")
    monkeypatch.delattr(Bucket, "download")
    assert objects.folder("one") == first
    shutil.rmtree(str(first))
    with pytest.raises(AttributeError):
        objects.folder("one")


def test_a_bucket_that_may_not_be_written_is_found_out_early(
    objects: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(TrainerError, match="denies access to the bucket") as raised:
        objects.require_writable()
    assert raised.value.reason is Reason.OUTPUT_NOT_WRITABLE
