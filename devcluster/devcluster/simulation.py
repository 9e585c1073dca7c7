"""Simulated GPU nodes, whose kubelet KWOK plays."""

from __future__ import annotations

from pathlib import Path

from devcluster.api import ApiServer, Manifest, node_ready, wait_until
from devcluster.layout import SOURCES, Layout
from devcluster.network import SIMULATED_SUBNET
from devcluster.processes import Component, Processes
from devcluster.progress import say, step

KWOK = "kwok"
# What tells simulated nodes from real ones: their label, and a taint that keeps real pods away.
SIMULATED = "type"
TAINT = "tunesmith.dev/simulated"
# Keeps every pod away until KWOK has taken the node on.
CLOSED = "tunesmith.dev/not-taken-on"
_SELECTOR = f"{SIMULATED}={KWOK}"


def start_simulation(
    layout: Layout, nodes: int, gpus: int, further_stages: tuple[Path, ...] = ()
) -> None:
    """Start KWOK, if it does not run, and have this many simulated nodes."""
    api = ApiServer(layout)
    names = [f"gpu-{number}" for number in range(nodes)]
    with step(f"{nodes} simulated nodes with {gpus} GPUs each"):
        for surplus in _simulated_nodes(api) - set(names):
            api.delete(f"/api/v1/nodes/{surplus}")
        add_nodes(layout, names, gpus, further_stages)


def add_nodes(
    layout: Layout,
    names: list[str],
    gpus: int,
    further_stages: tuple[Path, ...] = (),
    label: str = "",
) -> None:
    """Have these nodes besides; with ``label`` it is a taint of theirs, too.

    KWOK forgets a pod that was bound to a node before it took the node on, and a node that it hears
    of while it starts: nodes are there first, and closed until it has them.
    """
    api = ApiServer(layout)
    for name in names:
        closed = not node_ready(api, name)
        api.apply(f"/api/v1/nodes/{name}", _node(name, label, closed))
        api.apply(f"/api/v1/nodes/{name}/status", _node_status(name, gpus))
    Processes(layout).start(_kwok(layout, (SOURCES / "kwok" / "stages.yaml", *further_stages)))
    wait_until("simulated nodes are ready", 60, lambda: all(node_ready(api, n) for n in names))
    for name in names:
        api.apply(f"/api/v1/nodes/{name}", _node(name, label, closed=False))


def stop_simulation(layout: Layout) -> None:
    """Remove the simulated nodes, then KWOK."""
    api = ApiServer(layout)
    for name in _simulated_nodes(api):
        api.delete(f"/api/v1/nodes/{name}")
    Processes(layout).kill(KWOK)
    say("no simulated nodes")


def _kwok(layout: Layout, stages: tuple[Path, ...]) -> Component:
    return Component(
        KWOK,
        (
            str(layout.binaries / KWOK),
            f"--kubeconfig={layout.kubeconfig}",
            *(f"--config={each}" for each in stages),
            f"--cidr={SIMULATED_SUBNET}",
            f"--manage-nodes-with-label-selector={_SELECTOR}",
            "--node-lease-duration-seconds=40",
        ),
    )


def _simulated_nodes(api: ApiServer) -> set[str]:
    listed = api.get(f"/api/v1/nodes?labelSelector={SIMULATED}%3D{KWOK}")
    return {node["metadata"]["name"] for node in listed["items"]}


def _node(name: str, label: str, closed: bool) -> Manifest:
    taints = [{"key": TAINT, "value": KWOK, "effect": "NoSchedule"}]
    taints += [
        {"key": key, "effect": "NoSchedule"} for key in (label, CLOSED if closed else "") if key
    ]
    labels = {SIMULATED: KWOK, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    if label:
        labels[label] = ""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
    }


def _node_status(name: str, gpus: int) -> Manifest:
    resources = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"capacity": resources, "allocatable": resources},
    }
