"""Archives and buckets that lead elsewhere, or unpack to more than there is, are refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tunesmith.api.trainer_contract import PlannedSource, Reason
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.sources import archive, dataset_file
from tunesmith_trainer.sources.archive import model_in
from tunesmith_trainer.sources.object_store import is_file_name

from tests.unit.bounds import quick_and_small
from tests.unit.trainer.bounds import measured

URI = "https://models.example.com/tiny.tar.gz"
MOST_BYTES = 128 * 1024**2
MOST_SECONDS = 10


def member(name: str, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(found, key, value)
    return found


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for each, content in members:
            each.size = len(content)
            tar.addfile(each, io.BytesIO(content))
    return sink.getvalue()


def many_blocks(first: bytes, block: bytes, megabytes: int) -> bytes:
    """A gzip file of a beginning and so many megabytes of the same."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(first)]
    repeated = block * (1024**2 // len(block))
    parts += [packer.compress(repeated) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


CONFIG = (member("config.json"), b"{}")
LINK, HARD_LINK, DEVICE, PIPE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE


@pytest.mark.parametrize(
    "outside",
    [
        member("../escaped"),
        member("folder/../../escaped"),
        member("escaped", type=LINK, linkname="/etc/passwd"),
        member("escaped", type=LINK, linkname="../../escaped"),
        member("escaped", type=HARD_LINK, linkname="/etc/passwd"),
        member("escaped", type=DEVICE, devmajor=1, devminor=5),
        member("escaped", type=PIPE),
        member("x" * 5000),
        member("half\udc80a name" * 90),
    ],
    ids=lambda each: f"{each.name[:24]!a} {each.type.decode()}",
)
def test_nothing_leads_out_of_an_archives_folder(tmp_path: Path, outside: tarfile.TarInfo) -> None:
    path = tmp_path / "inner" / "tiny.tar.gz"
    path.parent.mkdir()
    path.write_bytes(packed(CONFIG, (outside, b"")))
    with pytest.raises(TrainerError, match=f"{URI} cannot be unpacked") as raised:
        model_in(path, URI)
    assert raised.value.reason is Reason.MODEL_UNUSABLE
    assert len(raised.value.message) < 6000
    assert not (tmp_path / "escaped").exists()


def test_an_absolute_name_is_taken_for_one_in_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(packed((member("/config.json"), b"{}")))
    assert (model_in(path, URI) / "config.json").read_text() == "{}"


# Bombs


def long_name() -> bytes:
    """A header that says that a name of gigabytes follows; and it does."""
    header = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=4 * 1024**3)
    return many_blocks(header.tobuf(tarfile.GNU_FORMAT), b"a" * 512, 256)


def many_properties() -> bytes:
    header = member("././@PaxHeader", type=tarfile.XHDTYPE, size=4 * 1024**3)
    return many_blocks(header.tobuf(tarfile.GNU_FORMAT), b"9 a=bcde\n" + b"x" * 503, 256)


def many_holes() -> bytes:
    """A sparse file whose list of holes goes on and on."""
    header = bytearray(member("weights", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    hole = b"00000000001\0" * 2
    return many_blocks(bytes(header), hole * 21 + b"\1" * 8, 24)


def many_members() -> bytes:
    return many_blocks(b"", member("empty").tobuf(tarfile.GNU_FORMAT), 16)


def headers_of_headers() -> bytes:
    """Each property header is about the next one."""
    header = member("././@PaxHeader", type=tarfile.XHDTYPE, size=9).tobuf(tarfile.GNU_FORMAT)
    return many_blocks(b"", header + b"9 a=bcde\n".ljust(512, b"\0"), 8)


@pytest.mark.parametrize(
    "content", [long_name, many_properties, many_holes, many_members, headers_of_headers]
)
def test_a_small_archive_that_fills_the_memory_is_refused(
    tmp_path: Path, content: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_MEMORY_BYTES", 64 * 1024**2)
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(content())
    assert path.stat().st_size < 16 * 1024**2
    ended = measured(lambda: model_in(path, URI))
    assert ended.told is not None
    assert f"{URI} cannot be unpacked" in ended.told[1]
    assert ended.processor_seconds < MOST_SECONDS
    assert ended.more_bytes < MOST_BYTES


def test_an_archive_that_fills_the_disk_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "room", lambda: 1024**2)
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(packed(CONFIG, (member("model.safetensors"), bytes(2 * 1024**2))))
    with pytest.raises(TrainerError) as raised:
        model_in(path, URI)
    assert raised.value.reason is Reason.SCRATCH_FULL
    assert not (path.parent / "unpacked").exists()


@seed(7)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 6)),
        min_size=1,
        max_size=4,
    ),
    is_packed=st.booleans(),
)
def test_an_archive_with_spoiled_bytes_is_refused_or_unpacked(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, bytes, int]],
    is_packed: bool,
) -> None:
    content = packed(CONFIG, (member("folder/model.safetensors"), bytes(range(256)) * 8))
    spoiled = bytearray(content if is_packed else gzip.decompress(content))
    for position, inserted, removed in edits:
        place = position % len(spoiled)
        spoiled[place : place + removed] = inserted
    path = tmp_path_factory.mktemp("spoiled") / "tiny.tar"
    path.write_bytes(spoiled)
    with quick_and_small():
        try:
            model_in(path, URI)
        except TrainerError as error:
            reason = error.reason
        else:
            return
    assert reason in {Reason.MODEL_UNUSABLE, Reason.SCRATCH_FULL}


# Places


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "folder/file"])
def test_keys_that_are_no_names_of_files_are_not_downloaded(name: str) -> None:
    assert not is_file_name(name)
    assert is_file_name("adapter_model.safetensors")


@pytest.mark.parametrize(
    "target", ["/proc/self/environ", "/dev/zero", "../../outside", "rows.jsonl"]
)
def test_a_dataset_that_is_a_link_out_of_its_volume_is_not_opened(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "outside").write_text("{}")
    folder = tmp_path / "volume" / "data"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").symlink_to(Path("..") / target if ".." in target else target)
    with pytest.raises(TrainerError, match=r"rows\.jsonl is a link that leads out") as raised:
        dataset_file(PlannedSource(uri="pvc://claim/data/rows.jsonl", path=f"{folder}/rows.jsonl"))
    assert raised.value.reason is Reason.DATASET_MALFORMED


def test_a_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    """As the kubelet lays it out."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "rows.jsonl").write_text("{}")
    (tmp_path / "..data").symlink_to("..2026")
    path = tmp_path / "rows.jsonl"
    path.symlink_to("..data/rows.jsonl")
    assert dataset_file(PlannedSource(uri="configmap://small/rows.jsonl", path=str(path))) == path
