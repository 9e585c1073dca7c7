"""The finished adapter in a real registry, whatever the registry asks to let it in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tunesmith.api.job_status import Artifact
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import PlannedRegistry, Reason
from tunesmith_trainer.failure import TrainerError, failure_from
from tunesmith_trainer.output import registry as client
from tunesmith_trainer.output.oci import pushed

from tests.stores.certificates import Certificate
from tests.stores.registry import (
    PASSWORD,
    USERNAME,
    RunningRegistry,
    password_registry,
    registry,
    token_registry,
)
from tests.stores.servers import LOCALHOST, free_port

DIGEST = "sha256:" + "a" * 64
FILES = {"adapter_model.safetensors": b"weights" * 300_000, "adapter_config.json": b"{}"}

Opened = AbstractContextManager[RunningRegistry]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    return made


@pytest.fixture
def at(tmp_path: Path) -> Path:
    made = tmp_path / "registry"
    made.mkdir()
    return made


def artifact() -> Artifact:
    return Artifact(uri="s3://b/a", digest=DIGEST, base_model_digest=DIGEST, rank=16)


def push(folder: Path, reference: str, **target: Any) -> Artifact:
    planned = PlannedRegistry(reference=reference, insecure=True, **target)
    return pushed(artifact(), folder, planned)


def get(host: str, path: str, **options: Any) -> httpx.Response:
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    return httpx.get(f"http://{host}/v2/{path}", headers=accept, **options).raise_for_status()


def test_what_was_pushed_is_found_by_tag_and_by_digest(folder: Path, at: Path) -> None:
    with registry(at) as running:
        result = push(folder, running.reference("team/triage"))
        assert result.oci_reference == running.reference("team/triage")
        by_tag = get(running.host, "team/triage/manifests/v1")
        by_digest = get(running.host, f"team/triage/manifests/{result.oci_digest}")
        assert by_tag.content == by_digest.content
        manifest = by_tag.json()
        assert manifest["artifactType"] == "application/vnd.tunesmith.adapter.v1"
        found = {}
        for layer in manifest["layers"]:
            blob = get(running.host, f"team/triage/blobs/{layer['digest']}").content
            assert layer["size"] == len(blob)
            assert layer["digest"] == f"sha256:{hashlib.sha256(blob).hexdigest()}"
            found[layer["annotations"]["org.opencontainers.image.title"]] = blob
        assert found == FILES
        config = get(running.host, f"team/triage/blobs/{manifest['config']['digest']}")
        assert json.loads(config.content)["digest"] == DIGEST


def test_a_second_push_uploads_nothing_and_names_the_same(
    folder: Path, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(at) as running:
        first = push(folder, running.reference("team/triage"))
        sent: list[str] = []
        send = client.Registry._send

        def noted(self: client.Registry, method: str, *rest: Any, **more: Any) -> httpx.Response:
            sent.append(method)
            return send(self, method, *rest, **more)

        monkeypatch.setattr(client.Registry, "_send", noted)
        assert push(folder, running.reference("team/triage")) == first
        assert sent == ["HEAD", "HEAD", "HEAD", "PUT"]


@pytest.fixture(params=["password", "token"])
def guarded(
    request: pytest.FixtureRequest, at: Path, certificate: Certificate
) -> Callable[[], Opened]:
    if request.param == "password":
        return lambda: password_registry(at)
    return lambda: token_registry(at, certificate)


def test_a_guarded_registry_opens_with_the_secrets_keys(
    folder: Path, guarded: Callable[[], Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_OCI_USERNAME", USERNAME)
    monkeypatch.setenv("REGISTRY_OCI_PASSWORD", PASSWORD)
    with guarded() as running:
        result = push(folder, running.reference("team/triage"), credentials="REGISTRY")
    assert str(result.oci_digest).startswith("sha256:")


@pytest.mark.parametrize("given", [None, "wrong"])
def test_a_registry_that_stays_shut_is_told(
    folder: Path,
    guarded: Callable[[], Opened],
    given: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if given:
        monkeypatch.setenv("REGISTRY_OCI_USERNAME", USERNAME)
        monkeypatch.setenv("REGISTRY_OCI_PASSWORD", given)
    with guarded() as running, pytest.raises(TrainerError) as raised:
        push(folder, running.reference("team/triage"), credentials="REGISTRY")
    said = raised.value.message
    assert "the adapter is stored, but cannot be pushed" in said
    assert "name a Secret with OCI_USERNAME and OCI_PASSWORD" in said
    assert failure_from(raised.value).failure_class is FailureClass.DATA_UNREACHABLE


def test_a_registry_that_does_not_answer_is_tried_again_and_then_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tunesmith_trainer.output.registry.time.sleep", waited.append)
    with pytest.raises(TrainerError, match="cannot be pushed") as raised:
        push(folder, f"{LOCALHOST}:{free_port()}/team/triage:v1")
    assert raised.value.reason is Reason.REGISTRY_UNREACHABLE
    assert waited == [1.0, 2.0, 4.0, 8.0]


def test_http_is_spoken_only_where_it_is_allowed(
    folder: Path, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_trainer.output.registry.PAUSES", ())
    with registry(at) as running, pytest.raises(TrainerError, match="cannot be pushed"):
        pushed(artifact(), folder, PlannedRegistry(reference=running.reference("team/triage")))
