"""Builds images without Docker or a registry: debootstrap makes the base, buildah the rest.

The base is kept in the cache folder; the images are removed once they have been tested.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "localhost/tunesmith/python-base"
CERTIFICATES = Path("/etc/ssl/certs")


@dataclass(frozen=True)
class Builder:
    """buildah with a store of its own."""

    store: Path

    def run(self, *arguments: str) -> str:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
        folders = ["--root", str(self.store / "root"), "--runroot", str(self.store / "run")]
        done = subprocess.run(
            ["buildah", *folders, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        return image in self.run("images", "--format", "{{.Name}}").splitlines()

    def build(self, dockerfile: str, name: str) -> str:
        """Build an image of ours on the base that we made; its name."""
        image = f"localhost/tunesmith/{name}"
        # A machine behind a proxy has its own certificates, which pip needs.
        trust = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
        if bundle := os.environ.get("PIP_CERT"):
            trust.append(f"--env=PIP_CERT={bundle}")
        base = f"--build-arg=BASE_IMAGE={BASE}"
        self.run("build", *trust, base, "--file", dockerfile, "--tag", image, ".")
        return image

    def execute(self, image: str, *command: str) -> str:
        """What a command prints inside a container of the image, with its user."""
        container = self.run("from", image)
        try:
            return self.run("run", container, "--", *command)
        finally:
            self.run("rm", container)


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    made = Builder(Path(base) / "tunesmith" / "images")
    made.store.mkdir(parents=True, exist_ok=True)
    if not made.has(BASE):
        make_base(made)
    yield made
    # What was built is some gigabytes large and serves nobody else; the base is kept.
    for image in ("operator", "trainer"):
        made.run("rmi", "--force", f"localhost/tunesmith/{image}")
    made.run("rmi", "--prune", "--force")


def make_base(builder: Builder) -> None:
    """A Debian with Python, from the mirror that this machine uses."""
    with tempfile.TemporaryDirectory(dir=builder.store) as folder:
        rootfs = Path(folder) / "rootfs"
        packages = "--include=python3,python3-pip,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", str(rootfs), mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(rootfs / "var" / "cache" / "apt", ignore_errors=True)
        container = builder.run("from", "scratch")
        builder.run("add", "--quiet", container, str(rootfs), "/")
        # Debian's pip refuses to install beside Debian's packages unless told that it may.
        builder.run("config", "--env", "PIP_BREAK_SYSTEM_PACKAGES=1", container)
        builder.run("commit", "--quiet", "--rm", container, BASE)


def mirror() -> str:
    """The package mirror of this machine's own apt."""
    for source in [*sorted(Path("/etc/apt").rglob("*.sources")), Path("/etc/apt/sources.list")]:
        if source.exists() and (found := re.search(r"\bhttps?://\S+", _entries(source))):
            return found.group()
    raise AssertionError("no package mirror is configured in /etc/apt")


def _entries(source: Path) -> str:
    return "\n".join(line for line in source.read_text().splitlines() if not line.startswith("#"))
