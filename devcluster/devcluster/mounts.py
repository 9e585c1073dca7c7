"""The folders of this machine that every container sees, and what is mounted because of us."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from devcluster.layout import Layout
from devcluster.progress import ClusterError

# Debian and most others have merged these into /usr: an image then holds links, not mounts.
MERGED_FOLDERS = ("/bin", "/sbin", "/lib", "/lib64")
_SYSTEM_FOLDERS = (
    "/usr",
    *MERGED_FOLDERS,
    "/etc/ssl",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/nginx/modules-enabled",
)
# Where containers see what belongs to the project.
IN_CONTAINERS = Path("/opt/tunesmith")
_DETACH = 2  # MNT_DETACH: take it out of the tree now, whoever may still use it


@dataclass(frozen=True)
class Shared:
    """A folder or file of this machine, and where containers see it, read-only."""

    source: Path
    destination: Path


def at_own_path(path: Path) -> Shared:
    return Shared(path, path)


def shared_folders(layout: Layout, extra: tuple[Shared, ...] = ()) -> tuple[Shared, ...]:
    """What containers see of this machine.

    Programs appear at their own paths. What belongs to the project appears below IN_CONTAINERS,
    wherever the checkout is: a pod that mounts its own /tmp would hide a checkout that lies there.
    A folder shared once stays shared until the cluster is removed, so that a later command need
    not name it again.
    """
    wanted = [
        *(at_own_path(Path(folder)) for folder in _SYSTEM_FOLDERS),
        at_own_path(Path(sys.base_prefix)),
        Shared(layout.repository / "operator", IN_CONTAINERS / "operator"),
        Shared(layout.repository / "trainer_image", IN_CONTAINERS / "trainer_image"),
        *extra,
        *_already_shared(layout),
    ]
    chosen: list[Shared] = []
    for each in wanted:
        taken = any(each.destination.is_relative_to(other.destination) for other in chosen)
        if each.source.exists() and not each.source.is_symlink() and not taken:
            chosen.append(each)
    return tuple(chosen)


def _already_shared(layout: Layout) -> list[Shared]:
    if not layout.container_defaults.exists():
        return []
    mounts = json.loads(layout.container_defaults.read_text())["mounts"]
    return [
        Shared(Path(mount["source"]), Path(mount["destination"]))
        for mount in mounts
        if mount["type"] == "bind"
    ]


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
