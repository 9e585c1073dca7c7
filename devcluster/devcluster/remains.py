"""Proof that a removed cluster left nothing: the machine before it, and the machine now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from devcluster.control_groups import GROUP, hierarchies, members
from devcluster.layout import RUN_DIRECTORY, Layout
from devcluster.network import interfaces, kernel_settings, packet_rules
from devcluster.progress import ClusterError
from devcluster.shell import output

# Folders that upstream's programs use whatever they are told.
FIXED_FOLDERS = tuple(
    Path(folder)
    for folder in (
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/log/containers",
        "/run/containerd/s",
        "/run/containerd",
    )
)


@dataclass(frozen=True)
class Machine:
    """What a cluster may leave behind."""

    interfaces: list[str]
    routes: list[str]
    mounts: list[str]
    network_namespaces: list[str]
    packet_rules: list[str]
    control_groups: list[str]
    folders: list[str]
    kernel_settings: list[str]


def look_at_machine() -> Machine:
    rules = []
    for family in ("iptables", "ip6tables"):
        try:
            rules += [f"{family} {rule}" for rule in packet_rules(family)]
        except ClusterError:
            continue  # no such packet filter in this kernel
    groups = [hierarchy / GROUP for hierarchy in hierarchies()]
    namespaces = Path("/run/netns")
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return Machine(
        interfaces=sorted(interfaces()),
        routes=sorted(output(["ip", "route", "show", "table", "all"]).splitlines()),
        mounts=sorted(mounts),
        network_namespaces=sorted(map(str, namespaces.iterdir())) if namespaces.exists() else [],
        packet_rules=rules,
        control_groups=[str(group) for group in groups if group.exists()],
        folders=_existing_folders(),
        kernel_settings=[f"{name} = {value}" for name, value in kernel_settings().items()],
    )


def _existing_folders() -> list[str]:
    """Each folder and what lies directly in it."""
    found: list[str] = []
    for folder in (RUN_DIRECTORY, *FIXED_FOLDERS):
        if folder.exists():
            found += [str(folder), *sorted(str(path) for path in folder.iterdir())]
    return sorted(set(found))


def remember_machine(layout: Layout) -> None:
    layout.machine_before.parent.mkdir(parents=True, exist_ok=True)
    layout.machine_before.write_text(json.dumps(asdict(look_at_machine()), indent=1))


def machine_before(layout: Layout) -> Machine | None:
    if not layout.machine_before.exists():
        return None
    return Machine(**json.loads(layout.machine_before.read_text()))


def left_behind(layout: Layout) -> list[str]:
    """Every trace of the cluster on this machine; empty after a clean removal."""
    found = [f"process {pid}: {_command(pid)}" for pid in sorted(members() | _marked_processes())]
    before = machine_before(layout)
    if before is None:
        return found
    now = look_at_machine()
    for each in fields(Machine):
        known = set(getattr(before, each.name))
        label = each.name.replace("_", " ")
        found += [f"{label}: {item}" for item in getattr(now, each.name) if item not in known]
    return found


def _marked_processes() -> set[int]:
    """Processes whose command line names our run directory, wherever they are."""
    marker = str(RUN_DIRECTORY)
    processes = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid for pid in processes if marker in _command(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
