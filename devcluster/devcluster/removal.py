"""Taking the cluster down, whatever state it is in."""

from __future__ import annotations

import shutil
from pathlib import Path

from devcluster.control_groups import kill_members, remove_groups
from devcluster.layout import RUN_DIRECTORY, Layout
from devcluster.mounts import unmount_below
from devcluster.network import remove_interface, remove_packet_rules, restore_kernel_settings
from devcluster.progress import step
from devcluster.remains import FIXED_FOLDERS, machine_before


def remove_cluster(layout: Layout) -> None:
    """Remove the cluster and all it stored, but for the logs. Each part may be gone already."""
    with step("ending the cluster's processes"):
        kill_members()
    with step("removing its mounts, addresses, packet rules and files"):
        # Before the folders are deleted: what is mounted in them is not ours to delete.
        sockets = _shim_sockets()
        unmount_below(RUN_DIRECTORY, layout.cluster)
        remove_interface()
        remove_packet_rules()
        remove_groups()
        _remove_files(layout, sockets)
        before = machine_before(layout)
        if before is not None:
            restore_kernel_settings(dict(each.split(" = ") for each in before.kernel_settings))


def _shim_sockets() -> list[Path]:
    """Sockets of our containers' shims, which lie in a folder that all of containerd shares."""
    records = (RUN_DIRECTORY / "containerd").rglob("address")
    return [Path(record.read_text().removeprefix("unix://")) for record in records]


def _remove_files(layout: Layout, sockets: list[Path]) -> None:
    for socket in sockets:
        socket.unlink(missing_ok=True)
    for result in Path("/var/lib/cni/results").glob("*"):
        # Each result names its pod's network namespace, which lies in our run directory.
        if str(RUN_DIRECTORY) in result.read_text(errors="replace"):
            result.unlink()
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(layout.cluster):
            link.unlink()
    for name in ("DEPRECATION", "kubelet.sock"):
        (Path("/var/lib/kubelet/device-plugins") / name).unlink(missing_ok=True)
    if RUN_DIRECTORY.exists():
        shutil.rmtree(RUN_DIRECTORY)
    _remove_all_but_logs(layout)
    layout.kubeconfig.unlink(missing_ok=True)
    for folder in FIXED_FOLDERS:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _remove_all_but_logs(layout: Layout) -> None:
    """Keep what explains a failure; the next start writes it anew."""
    if not layout.cluster.exists():
        return
    for path in layout.cluster.iterdir():
        if path == layout.logs:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
