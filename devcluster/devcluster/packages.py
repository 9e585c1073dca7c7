"""The Debian packages the cluster needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devcluster.progress import ClusterError, say, step
from devcluster.shell import SYSTEM_PATH

CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class Package:
    """A Debian package and a file that shows it is installed."""

    name: str
    program: str

    @property
    def installed(self) -> bool:
        if self.program.startswith("/"):
            return Path(self.program).exists()
        return shutil.which(self.program, path=SYSTEM_PATH) is not None


PACKAGES = (
    Package("containerd", "containerd"),
    Package("runc", "runc"),
    Package("containernetworking-plugins", str(CNI_PLUGINS / "ptp")),
    Package("iptables", "iptables"),
    Package("iproute2", "ip"),
    Package("conntrack", "conntrack"),
    Package("mount", "mount"),
    # The front proxy of serving pods runs from this machine's nginx.
    Package("nginx-light", "nginx"),
    # An OCI registry to push to.
    Package("docker-registry", "docker-registry"),
    # Its promtool judges our metrics, alerts and dashboard in tests.
    Package("prometheus", "promtool"),
    Package("libnginx-mod-http-lua", "/usr/lib/nginx/modules/ngx_http_lua_module.so"),
    Package("lua-cjson", "/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so"),
)
# What the tests of the Dockerfiles build images with.
IMAGE_PACKAGES = (
    Package("buildah", "buildah"),
    Package("debootstrap", "debootstrap"),
)


def install_packages(packages: tuple[Package, ...] = PACKAGES) -> None:
    """Install what is missing; a machine that has everything is left untouched."""
    missing = [package.name for package in packages if not package.installed]
    if not missing:
        say("Debian packages: all there")
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"install these programs first (no apt-get here): {', '.join(missing)}")
    with step(f"installing Debian packages ({', '.join(missing)}; about half a minute)"):
        _apt("update", "-qq")
        _apt("install", "-qq", "-y", "--no-install-recommends", *missing)


def _apt(*arguments: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"apt-get {arguments[0]} failed:\n{done.stdout}{done.stderr}")
