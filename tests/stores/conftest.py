"""An S3 store with a bucket of its own for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from devcluster.build import S3_SERVER, build
from devcluster.layout import own_layout
from tunesmith_trainer.sources.bucket import Bucket

from tests.stores.certificates import Certificate, make_certificate
from tests.stores.servers import LOCALHOST, S3Server, free_port, running

ACCESS_KEY = "the-access-key"
SECRET_KEY = "the-secret-key"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    program = build(S3_SERVER, own_layout())
    root, port = tmp_path_factory.mktemp("s3"), free_port()
    command = [
        *(str(program), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"),
        *("--port", f"{LOCALHOST}:{port}", "posix", "--sidecar"),
        *(str(tmp_path_factory.mktemp("s3-metadata")), str(root)),
    ]
    with running(command, port):
        yield S3Server(f"http://{LOCALHOST}:{port}", ACCESS_KEY, SECRET_KEY, root)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch folder of the test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    for module in ("sources.downloads", "output.objects"):
        monkeypatch.setattr(f"tunesmith_trainer.{module}.scratch_folder", lambda: folder)
    return folder


@pytest.fixture
def bucket(s3: S3Server, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, which the prefix TEST opens."""
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment("TEST").items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(f"bucket-{uuid.uuid4().hex[:8]}", "TEST")
    with bucket.errors():
        bucket._store.call_s3("create_bucket", Bucket=bucket.name)
    return bucket
