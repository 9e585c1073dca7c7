"""Files behind https: only with the right digest, never beyond the room there is."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import PlannedSource, Reason
from tunesmith_trainer import sources
from tunesmith_trainer.failure import TrainerError, failure_from

from tests.stores.certificates import Certificate
from tests.stores.https_server import Files, https_server

ROWS = b'{"instruction": "a", "output": "b"}\n' * 100_000
ROWS_DIGEST = f"sha256:{hashlib.sha256(ROWS).hexdigest()}"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time here."""
    pauses: list[float] = []
    monkeypatch.setattr("tunesmith_trainer.sources.https.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def files(
    certificate: Certificate, scratch: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Files]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    with https_server(certificate) as served:
        served.contents["/data/rows.jsonl"] = ROWS
        yield served


def rows(files: Files, digest: str | None = ROWS_DIGEST, path: str = "/data/rows.jsonl") -> Path:
    return sources.dataset_file(
        PlannedSource(uri=f"{files.url}{path}", content_digest=digest, credentials="DATASET")
    )


def refused(files: Files, path: str = "/data/rows.jsonl", digest: str = ROWS_DIGEST) -> str:
    """What is said when the server's answer is nobody's mistake in the data."""
    with pytest.raises(TrainerError) as raised:
        rows(files, digest, path)
    assert raised.value.reason is Reason.SOURCE_UNREACHABLE
    assert failure_from(raised.value).failure_class is FailureClass.DATA_UNREACHABLE
    return raised.value.message


def test_a_file_with_the_right_digest_is_fetched_once(files: Files) -> None:
    assert rows(files).read_bytes() == ROWS
    assert rows(files).name == "rows.jsonl"
    assert len(files.requests) == 1


def test_a_file_with_another_digest_is_refused_and_not_kept(files: Files, scratch: Path) -> None:
    other = "sha256:" + "0" * 64
    with pytest.raises(TrainerError, match=f"{ROWS_DIGEST}, not {other}") as raised:
        rows(files, other)
    assert raised.value.reason is Reason.DATASET_CHANGED
    assert failure_from(raised.value).failure_class is FailureClass.USER_ERROR
    assert not [path for path in scratch.rglob("*") if path.is_file()]


def test_without_a_digest_nothing_is_fetched(files: Files) -> None:
    with pytest.raises(TrainerError, match="has no digest: name one"):
        rows(files, None)
    assert files.requests == []


def test_a_missing_file_is_the_users_to_mend(files: Files) -> None:
    with pytest.raises(TrainerError, match=r"row.jsonl does not exist \(404\)") as raised:
        rows(files, path="/data/row.jsonl")
    assert raised.value.reason is Reason.DATASET_NOT_FOUND


def test_a_broken_connection_is_taken_up_where_it_ended(files: Files, waited: list[float]) -> None:
    files.cut_after = [1_000_000, 1_000_000]
    assert rows(files).read_bytes() == ROWS
    assert waited == [1.0, 2.0]
    ranges = [int(each.get("Range", "bytes=0-")[6:-1]) for each in files.requests]
    assert ranges[0] < ranges[1] < ranges[2]


def test_a_server_that_cannot_resume_is_asked_for_all_again(files: Files) -> None:
    files.resumable, files.cut_after = False, [1_000_000]
    assert rows(files).read_bytes() == ROWS
    assert [each.get("Range") for each in files.requests] == [None, None]


def test_a_server_in_trouble_is_asked_again_and_not_for_ever(
    files: Files, waited: list[float]
) -> None:
    files.statuses = [503, 429]
    assert rows(files).read_bytes() == ROWS
    files.statuses = [500] * 9
    assert "the server answers 500" in refused(files, digest="sha256:" + "1" * 64)
    assert waited == [1.0, 2.0, 1.0, 2.0, 4.0, 8.0]


def test_a_redirect_is_followed_to_https_and_nowhere_else(files: Files) -> None:
    files.redirects = {
        "/moved/rows.jsonl": f"{files.url}/data/rows.jsonl",
        "/plain/rows.jsonl": "http://127.0.0.1/rows.jsonl",
        "/round/rows.jsonl": "/round/rows.jsonl",
    }
    assert rows(files, path="/moved/rows.jsonl").read_bytes() == ROWS
    assert "redirected to http://, which is refused" in refused(files, "/plain/rows.jsonl")
    assert "redirected more than 5 times" in refused(files, "/round/rows.jsonl")


def test_the_secrets_header_opens_the_file_and_stays_with_its_server(
    files: Files, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.authorization = "Bearer the-token"
    assert "name a Secret with HTTPS_AUTHORIZATION" in refused(files)
    monkeypatch.setenv("DATASET_HTTPS_AUTHORIZATION", "Bearer the-token")
    assert rows(files).read_bytes() == ROWS
    with https_server(certificate) as elsewhere:
        elsewhere.contents["/rows.jsonl"] = ROWS
        files.redirects["/away/rows.jsonl"] = f"{elsewhere.url}/rows.jsonl"
        assert rows(files, path="/away/rows.jsonl").read_bytes() == ROWS
        assert "Authorization" not in elsewhere.requests[0]


def test_a_server_with_a_certificate_of_its_own_is_not_trusted(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "CERTIFICATE_VERIFY_FAILED" in refused(files)


@pytest.mark.parametrize("announced", [True, False])
def test_what_does_not_fit_into_scratch_is_refused(
    files: Files, announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_trainer.sources.https.room", lambda: len(ROWS) - 1)
    if not announced:
        monkeypatch.setattr("httpx.Headers.get", lambda self, key, default=None: default)
    with pytest.raises(TrainerError, match="of scratch and the pod has") as raised:
        rows(files)
    assert raised.value.reason is Reason.SCRATCH_FULL


# --- models in archives ------------------------------------------------------------------------


def archive(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tar.gz of files by name, or of members that are none."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def model(files: Files, packed: bytes) -> Path:
    files.contents["/tiny.tar.gz"] = packed
    digest = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    return sources.model_folder(
        PlannedSource(uri=f"{files.url}/tiny.tar.gz", content_digest=digest)
    )


@pytest.mark.parametrize("folder", ["", "tiny/"])
def test_a_model_is_the_archives_root_or_its_one_folder(files: Files, folder: str) -> None:
    packed = archive({f"{folder}config.json": b"{}", f"{folder}model.safetensors": b"weights"})
    found = model(files, packed)
    assert sorted(path.name for path in found.iterdir()) == ["config.json", "model.safetensors"]
    assert model(files, packed) == found


def test_an_archive_without_a_model_is_told(files: Files) -> None:
    with pytest.raises(TrainerError, match=r"holds no model: .* found README") as raised:
        model(files, archive({"README": b"nothing"}))
    assert raised.value.reason is Reason.MODEL_NOT_FOUND


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo("special")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        {"../evil": b"outside"},
        {"link": special(tarfile.SYMTYPE, "/etc")},
        {"link": special(tarfile.SYMTYPE, "../..")},
        {"link": special(tarfile.LNKTYPE, "../../evil")},
        {"device": special(tarfile.CHRTYPE)},
    ],
)
def test_what_leads_out_of_the_archives_folder_is_refused(
    files: Files, scratch: Path, members: dict[str, bytes | tarfile.TarInfo]
) -> None:
    with pytest.raises(TrainerError, match=r"cannot be unpacked .*: make it with") as raised:
        model(files, archive(members))
    assert raised.value.reason is Reason.MODEL_UNUSABLE
    assert not [path for path in scratch.rglob("*") if "evil" in path.name]


def test_half_an_archive_is_told(files: Files) -> None:
    packed = archive({"config.json": b"{}", "model.safetensors": bytes(range(256)) * 1000})
    with pytest.raises(TrainerError, match="cannot be unpacked"):
        model(files, packed[: len(packed) // 2])


def test_an_archive_that_grows_beyond_scratch_is_refused(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive({"config.json": b"{}", "model.safetensors": bytes(10_000_000)})
    assert len(packed) < 100_000
    monkeypatch.setattr("tunesmith_trainer.sources.archive.room", lambda: 1_000_000)
    with pytest.raises(TrainerError, match="of scratch and the pod has") as raised:
        model(files, packed)
    assert raised.value.reason is Reason.SCRATCH_FULL
