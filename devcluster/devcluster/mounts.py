"""The folders of this machine that every container sees, and what is mounted because of us."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

from devcluster.layout import Layout
from devcluster.progress import ClusterError

# Debian and most others have merged these into /usr: an image then holds links, not mounts.
MERGED_FOLDERS = ("/bin", "/sbin", "/lib", "/lib64")
_SYSTEM_FOLDERS = ("/usr", *MERGED_FOLDERS, "/etc/ssl", "/etc/alternatives", "/etc/ld.so.cache")
_DETACH = 2  # MNT_DETACH: take it out of the tree now, whoever may still use it


def shared_folders(layout: Layout, extra: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """What containers see of this machine, read-only, each at its own path.

    A folder shared once stays shared until the cluster is removed, so that a later command need
    not name it again.
    """
    environments = layout.build / "venvs"
    environments.mkdir(parents=True, exist_ok=True)
    wanted = [
        *(Path(folder) for folder in _SYSTEM_FOLDERS),
        Path(sys.base_prefix),
        layout.repository / "operator",
        layout.repository / "trainer_image",
        environments,
        *(folder.absolute() for folder in extra),
        *_already_shared(layout),
    ]
    chosen: list[Path] = []
    for folder in wanted:
        inside_another = any(folder.is_relative_to(other) for other in chosen)
        if folder.exists() and not folder.is_symlink() and not inside_another:
            chosen.append(folder)
    return tuple(chosen)


def _already_shared(layout: Layout) -> list[Path]:
    if not layout.container_defaults.exists():
        return []
    mounts = json.loads(layout.container_defaults.read_text())["mounts"]
    return [Path(mount["source"]) for mount in mounts if mount["type"] == "bind"]


def mounted_below(*folders: Path) -> list[Path]:
    """Mount points in these folders, the innermost first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if any(point.is_relative_to(folder) for folder in folders):
            points.append(point)
    return list(reversed(points))


def unmount_below(*folders: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    for point in mounted_below(*folders):
        if library.umount2(os.fsencode(point), _DETACH) != 0:
            raise ClusterError(f"cannot unmount {point}: {os.strerror(ctypes.get_errno())}")
