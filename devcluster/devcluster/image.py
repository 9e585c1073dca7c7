"""Development images: a few bytes each, since containers see this machine's own programs."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.layout import CONTAINERD_SOCKET
from devcluster.mounts import MERGED_FOLDERS
from devcluster.shell import output

NON_ROOT = 65532
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Image:
    """What an image's containers run by default."""

    name: str
    entrypoint: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: str = "/"
    user: int = NON_ROOT
    files: dict[str, Path] = field(default_factory=dict)


def import_image(image: Image, mount_points: tuple[Path, ...], scratch: Path) -> None:
    """Write the image as an archive and load it into the cluster's containerd."""
    scratch.mkdir(parents=True, exist_ok=True)
    archive = scratch / (image.name.replace("/", "_").replace(":", "_") + ".tar")
    archive.write_bytes(_archive(image, mount_points))
    address = str(CONTAINERD_SOCKET)
    output(["ctr", "--address", address, "--namespace", "k8s.io", "images", "import", archive])


def _archive(image: Image, mount_points: tuple[Path, ...]) -> bytes:
    """An OCI image layout as one archive: the same input gives the same bytes."""
    layer = _layer(image, mount_points)
    config = _encode(_config(image, layer))
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _descriptor(_CONFIG_TYPE, config),
            "layers": [_descriptor(_LAYER_TYPE, layer)],
        }
    )
    entry = _descriptor(_MANIFEST_TYPE, manifest)
    entry["annotations"] = {"io.containerd.image.name": image.name}
    content = {"oci-layout": _encode({"imageLayoutVersion": "1.0.0"})}
    content["index.json"] = _encode({"schemaVersion": 2, "manifests": [entry]})
    for blob in (layer, config, manifest):
        content[f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"] = blob
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in content.items():
            _add_file(archive, name, data, 0o644)
    return sink.getvalue()


def _config(image: Image, layer: bytes) -> dict[str, object]:
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": f"{image.user}:{image.user}",
            "Env": [f"{name}={value}" for name, value in sorted(image.environment.items())],
            "Entrypoint": list(image.entrypoint),
            "WorkingDir": image.working_directory,
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "history": [{"created_by": "devcluster"}],
    }


def _layer(image: Image, mount_points: tuple[Path, ...]) -> bytes:
    """Folders to mount on, and the few files a program expects of any system.

    The folders leading to a mount point belong to root and are open to all: a container that is
    not root passes them, even where this machine's own are closed to others.
    """
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for folder in _folders(image, mount_points):
            _add_folder(archive, folder, 0o1777 if folder in ("tmp", "var/tmp") else 0o755)
        for link in MERGED_FOLDERS:
            if Path(link).is_symlink():
                _add_link(archive, link.lstrip("/"), str(Path(link).readlink()))
        for name, text in _ACCOUNTS.items():
            _add_file(archive, name, text.encode(), 0o644)
        for point in mount_points:
            if point.is_file():
                _add_file(archive, str(point).lstrip("/"), b"", 0o644)
        for name, source in image.files.items():
            _add_file(archive, name.lstrip("/"), source.read_bytes(), 0o755)
    return sink.getvalue()


_ACCOUNTS = {
    "etc/passwd": f"root:x:0:0:root:/:/bin/sh\nnonroot:x:{NON_ROOT}:{NON_ROOT}::/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nnonroot:x:{NON_ROOT}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def _folders(image: Image, mount_points: tuple[Path, ...]) -> list[str]:
    folders = {"etc", "proc", "sys", "dev", "run", "tmp", "var", "var/tmp"}
    leaves = [Path(image.working_directory)]
    leaves += [point.parent if point.is_file() else point for point in mount_points]
    leaves += [Path(name).parent for name in image.files]
    for leaf in leaves:
        folders |= {str(folder).lstrip("/") for folder in (leaf, *leaf.parents)}
    return sorted(folders - {""})


def _add_folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    archive.addfile(entry)


def _add_file(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}
