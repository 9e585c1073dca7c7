"""Models, datasets and adapters from a real S3 store, and what is said when they are not there."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest
from tunesmith.api.digests import adapter_digest, base_model_digest
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import PlannedSource, Reason
from tunesmith_trainer import sources
from tunesmith_trainer.failure import TrainerError, failure_from
from tunesmith_trainer.sources.bucket import Bucket

from tests.stores.conftest import SECRET_KEY
from tests.stores.servers import LOCALHOST, S3Server, free_port

ROWS = b'{"instruction": "a", "output": "b"}\n'
OTHER = "sha256:" + "0" * 64


def source(uri: str, **fields: str) -> PlannedSource:
    return PlannedSource(uri=uri, credentials="TEST", **fields)


def upload_model(bucket: Bucket, weights: bytes = b"weights") -> None:
    for name, content in {
        "models/tiny/config.json": b"{}",
        "models/tiny/model.safetensors": weights,
        "models/tiny/pytorch_model.bin": b"pickle",
        "models/tiny/checkpoint-1/model.safetensors": b"older",
    }.items():
        bucket.write(name, content)


def test_a_dataset_is_one_object(bucket: Bucket) -> None:
    bucket.write("data/rows.jsonl", ROWS)
    path = sources.dataset_file(source(f"s3://{bucket.name}/data/rows.jsonl"))
    assert path.name == "rows.jsonl"
    assert path.read_bytes() == ROWS


def test_a_model_is_what_lies_right_below_a_prefix_and_is_no_pickle(bucket: Bucket) -> None:
    upload_model(bucket)
    folder = sources.model_folder(source(f"s3://{bucket.name}/models/tiny"))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_other_content_under_the_same_name_is_downloaded_anew(bucket: Bucket) -> None:
    upload_model(bucket)
    first = sources.model_folder(source(f"s3://{bucket.name}/models/tiny"))
    upload_model(bucket, weights=b"changed")
    second = sources.model_folder(source(f"s3://{bucket.name}/models/tiny"))
    assert first != second
    assert (second / "model.safetensors").read_bytes() == b"changed"


def test_an_interrupted_download_goes_on_where_it_ended(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_model(bucket)
    fetched: list[str] = []
    download = Bucket.download

    def breaks_once(self: Bucket, key: str, path: Path) -> None:
        fetched.append(key.rpartition("/")[2])
        if len(fetched) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        download(self, key, path)

    monkeypatch.setattr(Bucket, "download", breaks_once)
    planned = source(f"s3://{bucket.name}/models/tiny")
    with pytest.raises(KeyboardInterrupt):
        sources.model_folder(planned)
    folder = sources.model_folder(planned)
    assert fetched == ["config.json", "model.safetensors", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_an_object_of_many_parts_arrives_whole(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_trainer.sources.bucket.PART_BYTES", 5 * 1024**2)
    large = tmp_path / "rows.jsonl"
    with large.open("wb") as file:
        for number in range(17):
            file.write(number.to_bytes() * 1024**2)
    bucket.upload(large, "rows.jsonl")
    digest = f"sha256:{hashlib.sha256(large.read_bytes()).hexdigest()}"
    path = sources.dataset_file(source(f"s3://{bucket.name}/rows.jsonl", content_digest=digest))
    assert path.stat().st_size == 17 * 1024**2


def test_an_adapter_is_known_by_its_digest(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text(name)
        bucket.write(f"adapters/one/{name}", name.encode())
    planned = source(f"s3://{bucket.name}/adapters/one")
    folder = sources.adapter_folder(planned, adapter_digest(tmp_path))
    assert adapter_digest(folder) == adapter_digest(tmp_path)
    with pytest.raises(TrainerError, match="not sha256:0000") as raised:
        sources.adapter_folder(planned, OTHER)
    assert raised.value.reason is Reason.ADAPTER_CHANGED


def test_another_digest_than_the_plan_names_is_the_users_to_mend(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.write("rows.jsonl", ROWS)
    found = f"sha256:{hashlib.sha256(ROWS).hexdigest()}"
    with pytest.raises(TrainerError, match=f"{found}, not {OTHER}") as raised:
        sources.dataset_file(source(f"s3://{bucket.name}/rows.jsonl", content_digest=OTHER))
    assert raised.value.reason is Reason.DATASET_CHANGED
    upload_model(bucket)
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    right = base_model_digest(tmp_path)
    sources.model_folder(source(f"s3://{bucket.name}/models/tiny", content_digest=right))
    with pytest.raises(TrainerError, match=f"{right}, not {OTHER}") as raised:
        sources.model_folder(source(f"s3://{bucket.name}/models/tiny", content_digest=OTHER))
    assert raised.value.reason is Reason.BASE_MODEL_CHANGED
    assert failure_from(raised.value).failure_class is FailureClass.USER_ERROR


def test_a_missing_object_is_named_with_what_lies_there_instead(bucket: Bucket) -> None:
    bucket.write("data/row.jsonl", ROWS)
    with pytest.raises(TrainerError, match=r"its folder has row\.jsonl") as raised:
        sources.dataset_file(source(f"s3://{bucket.name}/data/rows.jsonl"))
    assert raised.value.reason is Reason.DATASET_NOT_FOUND
    with pytest.raises(TrainerError, match=r"s3://.*/models holds nothing") as raised:
        sources.model_folder(source(f"s3://{bucket.name}/models"))
    assert raised.value.reason is Reason.MODEL_NOT_FOUND


def unreachable(planned: PlannedSource) -> str:
    """What is said of a store that does not give the file; nobody's mistake in the data."""
    with pytest.raises(TrainerError) as raised:
        sources.dataset_file(planned)
    assert failure_from(raised.value).failure_class is FailureClass.DATA_UNREACHABLE
    assert SECRET_KEY not in raised.value.message
    return raised.value.message


def test_a_missing_bucket_is_named(s3: S3Server, bucket: Bucket) -> None:
    said = unreachable(source("s3://no-such-bucket/rows.jsonl"))
    assert s3.endpoint.removeprefix("http://") in said
    assert "has no bucket no-such-bucket: create it" in said


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_told(
    bucket: Bucket, key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"TEST_{key}", "not-the-right-one")
    with caplog.at_level(logging.DEBUG):
        said = unreachable(source(f"s3://{bucket.name}/rows.jsonl"))
    assert f"denies access to the bucket {bucket.name}" in said
    assert "AWS_SECRET_ACCESS_KEY in the Secret" in said
    assert "not-the-right-one" not in said
    if key == "AWS_SECRET_ACCESS_KEY":
        assert "not-the-right-one" not in caplog.text


def test_no_credentials_at_all_are_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("TEST_AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("TEST_AWS_SECRET_ACCESS_KEY")
    said = unreachable(source(f"s3://{bucket.name}/rows.jsonl"))
    assert "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said


def test_a_public_bucket_needs_no_secret(
    s3: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("rows.jsonl", ROWS)
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": f"arn:aws:s3:::{bucket.name}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    bucket._store.call_s3("put_bucket_policy", Bucket=bucket.name, Policy=policy)
    # The address is no secret: podTemplate.env may have it for all sources.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    public = PlannedSource(uri=f"s3://{bucket.name}/rows.jsonl")
    assert sources.dataset_file(public).read_bytes() == ROWS


def test_an_endpoint_that_does_not_answer_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_trainer.sources.bucket.ATTEMPTS", 1)
    address = f"{LOCALHOST}:{free_port()}"
    monkeypatch.setenv("TEST_AWS_ENDPOINT_URL", f"http://user:secret@{address}/path")
    said = unreachable(source(f"s3://{bucket.name}/rows.jsonl"))
    assert f"cannot be reached at {address}" in said
    assert "user" not in said.replace("users", "")


def test_two_sources_have_two_secrets(
    s3: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("rows.jsonl", ROWS)
    for name, value in s3.environment("OTHER").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTHER_AWS_SECRET_ACCESS_KEY", "wrong")
    planned = source(f"s3://{bucket.name}/rows.jsonl")
    assert sources.dataset_file(planned).read_bytes() == ROWS
    unreachable(planned.model_copy(update={"credentials": "OTHER"}))


def test_what_does_not_fit_into_scratch_is_refused_before_it_is_downloaded(
    bucket: Bucket, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("rows.jsonl", ROWS)
    monkeypatch.setattr("tunesmith_trainer.sources.downloads.room", lambda: 10)
    assert "of scratch and the pod has" in unreachable(source(f"s3://{bucket.name}/rows.jsonl"))
    assert not [path for path in scratch.rglob("*") if path.is_file()]
