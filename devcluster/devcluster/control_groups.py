"""The control groups that hold every process of the cluster, so that each can be found again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from devcluster.progress import ClusterError

GROUP = "tunesmith-devcluster"
_STOP_WITHIN_SECONDS = 15.0


def hierarchies() -> list[Path]:
    """Where the controllers' trees are mounted (cgroup v1: one tree per controller)."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in mounts if fields[2] == "cgroup"]


def create_groups() -> None:
    """Make the group below which the kubelet keeps its pods, in every tree."""
    if not hierarchies():
        raise ClusterError(
            "this machine has cgroup v2 only, which the development cluster was not tried on: "
            "use kind, k3d or any real cluster here"
        )
    for hierarchy in hierarchies():
        group = hierarchy / GROUP
        group.mkdir(exist_ok=True)
        # A new group of the cpuset tree has no processor and no memory node: nothing may enter.
        for name in ("cpuset.cpus", "cpuset.mems"):
            setting = group / name
            if setting.exists() and not setting.read_text().strip():
                setting.write_text((hierarchy / name).read_text())


def component_group(name: str) -> Path:
    """The group of one component, in the first tree alone: it marks processes, limits nothing.

    Beside the pods' group, as on a node whose control plane runs in pods: the first tree may be the
    processors', which neighbours share. One group around all components left an operator that had
    much to do without a processor for up to a second at a time.
    """
    group = hierarchies()[0] / GROUP / name
    group.mkdir(exist_ok=True)
    return group


def members() -> set[int]:
    """Every process of the cluster: components, containers' shims, containers."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for listing in (hierarchy / GROUP).rglob("cgroup.procs"):
            found |= _listed(listing)
        found |= _listed(hierarchy / GROUP / "cgroup.procs")
    return found


def _listed(listing: Path) -> set[int]:
    try:
        return {int(line) for line in listing.read_text().split()}
    except FileNotFoundError:
        return set()  # the group went away while we looked


def kill_members() -> None:
    """Kill whatever is left in our groups; repeated, since a process may fork meanwhile."""
    deadline = time.monotonic() + _STOP_WITHIN_SECONDS
    while processes := members() - {os.getpid()}:
        if time.monotonic() > deadline:
            raise ClusterError(f"these processes do not die: {sorted(processes)}")
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def remove_groups() -> None:
    """Remove our groups, the innermost first."""
    for hierarchy in hierarchies():
        top = hierarchy / GROUP
        if not top.exists():
            continue
        nested = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        for group in [*nested, top]:
            _remove_group(group)


def _remove_group(group: Path) -> None:
    # The kernel lets go of a dead process a moment after it left the process table.
    deadline = time.monotonic() + _STOP_WITHIN_SECONDS
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
