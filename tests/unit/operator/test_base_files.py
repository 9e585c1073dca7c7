"""The base model's digest: of plain files on its own claim, whatever else lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tunesmith.api.digests import base_model_digest
from tunesmith.api.reasons import RefusalReason
from tunesmith.api.serving_contract import DesiredAdapter, ServedBase
from tunesmith.sidecar.base_files import BaseFiles
from tunesmith.sidecar.refusal import Refused

from tests.unit.bounds import quick_and_small
from tests.unit.operator.adapters import write_base


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def folder(claims: Path) -> Path:
    return write_base(claims / "models" / "team" / "tiny")


def judged(digest: str) -> DesiredAdapter:
    return DesiredAdapter(model="a@1", path="/a", digest="sha256:1", base_model_digest=digest)


async def require(claims: Path, folder: Path, digest: str = "sha256:2") -> None:
    served = ServedBase(name="tiny", path=str(folder))
    await BaseFiles(claims=claims).require(served, judged(digest))


async def refused(claims: Path, folder: Path, said: str) -> None:
    """Neither its digest nor its shapes are asked for."""
    with quick_and_small():
        with pytest.raises(Refused) as caught:
            await require(claims, folder)
        served = ServedBase(name="tiny", path=str(folder))
        assert await BaseFiles(claims=claims).read(served) is None
    assert caught.value.reason is RefusalReason.WRONG_BASE_MODEL
    assert said in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "other.safetensors"])
async def test_a_pipe_is_not_waited_for(claims: Path, folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    await refused(claims, folder, f"{name}' is a pipe, a device or a folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "other.safetensors"])
async def test_a_link_out_of_the_claim_is_not_followed(
    claims: Path, folder: Path, name: str
) -> None:
    """Nor to another claim of this pod's."""
    for target in ("/dev/zero", "../../../secret"):
        (claims / "secret").write_text("{}")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        await refused(claims, folder, f"{name}' is a link that leads out of {claims / 'models'}")


async def test_links_in_a_circle_are_named(claims: Path, folder: Path) -> None:
    (folder / "other.safetensors").symlink_to("other.safetensors")
    await refused(claims, folder, "other.safetensors' cannot be read")


async def test_links_within_the_claim_are_followed(claims: Path, folder: Path) -> None:
    """As the hub's cache has them, when somebody copied it as it is."""
    blobs = claims / "models" / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    await require(claims, folder, base_model_digest(folder))
    assert await BaseFiles(claims=claims).read(ServedBase(name="tiny", path=str(folder)))
