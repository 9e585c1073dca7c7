"""Where everything of the cluster lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Unix sockets allow some hundred characters of path, which a checkout's own folder may exceed;
# sockets and run-time state therefore lie here. One machine runs one cluster at a time.
RUN_DIRECTORY = Path("/run/tunesmith-devcluster")
OWNER_RECORD = RUN_DIRECTORY / "owner"
CONTAINERD_SOCKET = RUN_DIRECTORY / "containerd.sock"

SOURCES = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Layout:
    """The folders of one checkout's cluster."""

    repository: Path

    @property
    def build(self) -> Path:
        return self.repository / "build"

    @property
    def binaries(self) -> Path:
        return self.build / "bin"

    @property
    def program(self) -> Path:
        return self.binaries / "devcluster"

    @property
    def cluster(self) -> Path:
        return self.build / "cluster"

    @property
    def certificates(self) -> Path:
        return self.cluster / "certificates"

    @property
    def configuration(self) -> Path:
        return self.cluster / "configuration"

    @property
    def container_defaults(self) -> Path:
        """What containerd starts every container from."""
        return self.configuration / "container.json"

    @property
    def logs(self) -> Path:
        return self.cluster / "logs"

    @property
    def records(self) -> Path:
        return self.cluster / "processes"

    @property
    def volumes(self) -> Path:
        return self.cluster / "volumes"

    @property
    def audit_log(self) -> Path:
        return self.cluster / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of a cluster administrator, for kubectl, helm and tests."""
        return self.build / "kubeconfig"

    @property
    def machine_before(self) -> Path:
        """What the machine looked like before the cluster's first start."""
        return self.build / "machine-before.json"

    def component_kubeconfig(self, identity: str) -> Path:
        return self.configuration / f"{identity}.kubeconfig"


def own_layout() -> Layout:
    """The layout of the checkout this file belongs to."""
    return Layout(SOURCES.parent)


def cache_directory() -> Path:
    """Where built programs are kept; outside the checkout, so that a fresh clone finds them."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tunesmith" / "devcluster"
