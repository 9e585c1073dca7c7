"""Kueue: upstream's own manager, as a process of the cluster."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from devcluster.build import KUEUE, build
from devcluster.layout import SOURCES, Layout
from devcluster.processes import Component, Processes
from devcluster.progress import ClusterError, step

_NAME = "kueue"
_MODULE = "sigs.k8s.io/kueue"
#: Where the manager looks for a certificate, whatever its configuration says.
_CERTIFICATES = "/etc/kueue/metrics/certs"
#: What people and Kueue make of its kinds; the manager has to let go of each.
_OBJECTS = "workloads,localqueues,clusterqueues,resourceflavors,workloadpriorityclasses"


def start_queueing(layout: Layout) -> None:
    """Install Kueue's kinds and start its manager, if it does not run."""
    build(KUEUE, layout)
    with step("Kueue"):
        definitions = str(_definitions())
        _kubectl(layout, "apply", "--server-side", "--filename", definitions)
        _kubectl(layout, "wait", "--for=condition=Established", "--timeout=60s", "-f", definitions)
        Processes(layout).start(_kueue(layout))


def stop_queueing(layout: Layout) -> None:
    """Remove what it holds, while it can let go of it; then the manager and its kinds."""
    with step("removing Kueue"):
        _kubectl(layout, "delete", _OBJECTS, "--all", "--all-namespaces", "--timeout=60s")
        Processes(layout).kill(_NAME)
        _kubectl(layout, "delete", "--filename", str(_definitions()), "--timeout=60s")


def _kueue(layout: Layout) -> Component:
    """It sees an /etc of its own, with the API server's certificate in it: nobody asks for it."""
    folder = layout.cluster / _NAME
    for each in ("etc", "work"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    own_etc = f"lowerdir=/etc,upperdir={folder}/etc,workdir={folder}/work"
    certificate = f"{layout.certificates}/apiserver"
    manager = (
        f"{layout.binaries}/{KUEUE.name} --config={SOURCES}/kueue/configuration.yaml "
        f"--kubeconfig={layout.kubeconfig} --feature-gates=VisibilityOnDemand=false"
    )
    script = (
        f"mount -t overlay overlay -o {own_etc} /etc && mkdir -p {_CERTIFICATES} && "
        f"cp {certificate}.crt {_CERTIFICATES}/tls.crt && "
        f"cp {certificate}.key {_CERTIFICATES}/tls.key && exec {manager}"
    )
    return Component(_NAME, ("unshare", "--mount", "sh", "-c", script))


def _definitions() -> Path:
    """The CustomResourceDefinitions, as they come with the module."""
    command = ["go", "mod", "download", "-json", _MODULE]
    done = subprocess.run(command, cwd=KUEUE.module, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{_MODULE} cannot be had: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"]) / "config" / "components" / "crd" / "bases"


def _kubectl(layout: Layout, *arguments: str) -> None:
    done = subprocess.run(
        [str(layout.binaries / "kubectl"), *arguments],
        env=os.environ | {"KUBECONFIG": str(layout.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"kubectl {arguments[0]}: {done.stderr.strip()}")
