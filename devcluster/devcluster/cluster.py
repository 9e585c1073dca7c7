"""Bringing the cluster up."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster import components
from devcluster.api import ApiServer, node_ready, wait_until
from devcluster.build import build_all
from devcluster.configuration import PAUSE_IMAGE, write_configuration
from devcluster.control_groups import create_groups, members
from devcluster.image import Image, import_image
from devcluster.layout import CONTAINERD_SOCKET, OWNER_RECORD, RUN_DIRECTORY, Layout
from devcluster.mounts import Shared, shared_folders
from devcluster.network import (
    DNS_PORT,
    KUBELET_HEALTH_PORT,
    NODE_ADDRESS,
    NODE_NAME,
    SERVICE_OF_API_SERVER,
    create_interface,
)
from devcluster.packages import install_packages
from devcluster.processes import Processes
from devcluster.progress import ClusterError, say, step
from devcluster.remains import remember_machine
from devcluster.removal import remove_cluster
from devcluster.shell import output

_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "hostpath",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "tunesmith.dev/hostpath",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}


@contextmanager
def machine_lock() -> Iterator[None]:
    """Let one command at a time change the cluster; a lock on a folder leaves no file behind."""
    folder = os.open(RUN_DIRECTORY.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def owner() -> Layout | None:
    """Whose cluster this machine runs, or last ran without removing it."""
    try:
        return Layout(Path(OWNER_RECORD.read_text()))
    except FileNotFoundError:
        return None


def bring_up(layout: Layout, extra_folders: tuple[Shared, ...] = ()) -> None:
    """Start what does not run yet and wait until the node takes pods."""
    install_packages()
    build_all(layout)
    with machine_lock(), step("starting the cluster"):
        _claim_machine(layout)
        shared = shared_folders(layout, extra_folders)
        known = _container_defaults(layout)
        _prepare(layout, shared)
        if known is not None and known != _container_defaults(layout):
            # It reads them when it starts; the containers that run do not notice.
            Processes(layout).kill("containerd")
        _start(layout, shared)
    say(f"ready: export KUBECONFIG={layout.kubeconfig}")


def _container_defaults(layout: Layout) -> str | None:
    path = layout.container_defaults
    return path.read_text() if path.exists() else None


def _claim_machine(layout: Layout) -> None:
    previous = owner()
    if previous is not None and previous != layout:
        if members():
            raise ClusterError(
                f"the cluster of {previous.repository} runs on this machine: "
                "`python3 -m devcluster down --any` removes it"
            )
        say(f"removing what is left of the cluster of {previous.repository}")
        remove_cluster(previous)
    if owner() is None:
        remember_machine(layout)
    RUN_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    OWNER_RECORD.write_text(str(layout.repository))


def _prepare(layout: Layout, shared: tuple[Shared, ...]) -> None:
    create_groups()
    create_interface()
    for folder in (layout.volumes, layout.logs):
        folder.mkdir(parents=True, exist_ok=True)
    if not (layout.certificates / "service-account.pub").exists():
        addresses = ",".join(("127.0.0.1", NODE_ADDRESS, SERVICE_OF_API_SERVER))
        output(
            [
                layout.program,
                "pki",
                f"--directory={layout.certificates}",
                f"--node={NODE_NAME}",
                f"--addresses={addresses}",
            ]
        )
    write_configuration(layout, shared)


def _start(layout: Layout, shared: tuple[Shared, ...]) -> None:
    processes = Processes(layout)
    for component in (*components.foundation(layout), components.api_server(layout)):
        processes.start(component)
    with step("containerd and the sandbox image"):
        wait_until("containerd answers", 30, lambda: _containerd_answers(processes))
        mount_points = tuple(each.destination for each in shared)
        import_image(_pause_image(layout), mount_points, layout.cluster / "images")
    api = ApiServer(layout)
    with step("API server"):
        wait_until("API server is ready", 60, lambda: _alive(processes, "kube-apiserver", api))
    for component in components.workers(layout):
        processes.start(component)
    api.apply("/apis/storage.k8s.io/v1/storageclasses/hostpath", _STORAGE_CLASS)
    with step("node"):
        wait_until("the kubelet answers", 60, lambda: _answers("127.0.0.1", KUBELET_HEALTH_PORT))
        wait_until("the node is ready", 60, lambda: _node_takes_pods(processes, api))
        wait_until("the cluster's names resolve", 60, lambda: _answers(NODE_ADDRESS, DNS_PORT))
        wait_until("the default service account is there", 60, lambda: api.has(_SERVICE_ACCOUNT))
    for component in components.every_component(layout):
        processes.require_alive(component.name)


def restart(layout: Layout, name: str) -> None:
    """Kill one component, however it hangs, and start it anew."""
    processes = Processes(layout)
    for component in components.every_component(layout):
        if component.name == name:
            processes.kill(name)
            processes.start(component)
            return
    raise ClusterError(f"there is no component {name}")


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def _containerd_answers(processes: Processes) -> bool:
    processes.require_alive("containerd")
    if not CONTAINERD_SOCKET.exists():
        return False
    try:
        output(["ctr", "--address", CONTAINERD_SOCKET, "version"])
    except ClusterError:
        return False
    return True


def _alive(processes: Processes, name: str, api: ApiServer) -> bool:
    processes.require_alive("etcd")
    processes.require_alive(name)
    return api.ready()


def _node_takes_pods(processes: Processes, api: ApiServer) -> bool:
    processes.require_alive("kubelet")
    return node_ready(api, NODE_NAME)


def _pause_image(layout: Layout) -> Image:
    return Image(
        name=PAUSE_IMAGE,
        entrypoint=("/pause",),
        files={"/pause": layout.binaries / "pause"},
    )
