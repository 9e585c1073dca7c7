"""Building the cluster's programs from source, once per change of their sources."""

from __future__ import annotations

import hashlib
import os
import re
import selectors
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.layout import SOURCES, Layout, cache_directory
from devcluster.progress import ClusterError, say, step

_REPORT_EVERY_SECONDS = 15.0


@dataclass(frozen=True)
class Program:
    """One binary: the module it is built in, its main package and how long a first build takes."""

    name: str
    module: Path
    package: str
    first_build: str
    version_module: str = ""
    version_variables: tuple[str, ...] = field(default=())


HELM = Program(
    name="helm",
    module=SOURCES / "helm",
    package="helm.sh/helm/v4/cmd/helm",
    first_build="about a minute after devcluster",
    version_module="helm.sh/helm/v4",
    version_variables=("helm.sh/helm/v4/internal/version.version",),
)

PROGRAMS = (
    Program(
        name="devcluster",
        module=SOURCES,
        package=".",
        first_build="6 to 9 minutes on two cores",
        version_module="k8s.io/kubernetes",
        version_variables=("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
    ),
    Program(
        name="pause",
        module=SOURCES,
        package="./pause",
        first_build="a few seconds",
    ),
    HELM,
    Program(
        name="kwok",
        module=SOURCES / "kwok",
        package="sigs.k8s.io/kwok/cmd/kwok",
        first_build="two to three minutes",
        version_module="sigs.k8s.io/kwok",
        version_variables=("sigs.k8s.io/kwok/pkg/consts.Version",),
    ),
)


#: No part of the cluster: an S3 server that keeps objects as files of a folder, for tests.
S3_SERVER = Program(
    name="versitygw",
    module=SOURCES / "s3",
    package="github.com/versity/versitygw/cmd/versitygw",
    first_build="two to three minutes",
)

#: No part of the cluster either: Argo CD's own code, for tests of the health checks.
ARGOCD = Program(
    name="argocd-says",
    module=SOURCES / "argocd",
    package=".",
    first_build="three minutes or more",
)

#: Started on demand only: Kueue's own manager.
KUEUE = Program(
    name="kueue",
    module=SOURCES / "kueue",
    package="sigs.k8s.io/kueue/cmd/kueue",
    first_build="about five minutes",
)


def build_all(layout: Layout) -> None:
    for program in PROGRAMS:
        build(program, layout)
    _write_kubectl(layout)


def _write_kubectl(layout: Layout) -> None:
    """kubectl is in our program too: of the cluster's own version, whatever the machine has."""
    script = layout.binaries / "kubectl"
    script.write_text('#!/bin/sh\nexec "$(dirname "$0")/devcluster" kubectl "$@"\n')
    script.chmod(0o755)


def build(program: Program, layout: Layout) -> Path:
    """Put a link to the built program into the checkout, building it if no one has yet."""
    flags = _linker_flags(program)
    cached = cache_directory() / _fingerprint(program, flags) / program.name
    if not cached.exists():
        with step(f"building {program.name} (a first build takes {program.first_build})"):
            _compile(program, flags, cached)
    link = layout.binaries / program.name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != cached:
        link.unlink(missing_ok=True)
        link.symlink_to(cached)
    return link


def _linker_flags(program: Program) -> str:
    """Strip the binary and tell it its version, which a plain `go build` leaves out."""
    flags = ["-s", "-w"]
    if program.version_module:
        version = module_version(program)
        for variable in program.version_variables:
            if variable.endswith(("/version.version", ".Version")):
                flags.append(f"-X {variable}={version}")
            else:
                flags.extend(_kubernetes_version_flags(variable, version))
    return " ".join(flags)


def _kubernetes_version_flags(package: str, version: str) -> list[str]:
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "1970-01-01T00:00:00Z",  # the same sources give the same binary
    }
    return [f"-X {package}.{name}={value}" for name, value in values.items()]


def module_version(program: Program) -> str:
    """The version of upstream's module that go.mod asks for."""
    text = (program.module / "go.mod").read_text()
    found = re.search(rf"^(?:require|\t)\s*{re.escape(program.version_module)} (v\S+)", text, re.M)
    if found is None:
        raise ClusterError(f"{program.module / 'go.mod'} requires no {program.version_module}")
    return found.group(1)


def _fingerprint(program: Program, flags: str) -> str:
    """Name everything the binary depends on."""
    digest = hashlib.sha256(f"{program.package}\n{flags}\n{_go_version()}\n".encode())
    patterns = ("*.go",) if program.package == "." else (f"{program.package}/*.go",)
    for pattern in ("go.mod", "go.sum", *patterns):
        # A main package of another module has no sources here: go.sum pins them.
        relative = pattern.removeprefix("./")
        for path in sorted(program.module.glob(relative)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _go_version() -> str:
    if shutil.which("go") is None:
        raise ClusterError("no `go` on the path: install Go 1.26 or newer")
    return subprocess.run(
        ["go", "version"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _compile(program: Program, flags: str, target: Path) -> None:
    """Compile under a name of its own and rename: an interrupted build leaves no broken program."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    command = ["go", "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(partial)]
    process = subprocess.Popen(
        [*command, program.package],
        cwd=program.module,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
        bufsize=0,  # a line kept in a buffer would not wake the selector
        stderr=subprocess.PIPE,
    )
    try:
        lines = _follow(program.name, process)
        if process.wait() != 0:
            raise ClusterError(f"building {program.name} failed:\n" + "".join(lines[-40:]))
        partial.replace(target)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        partial.unlink(missing_ok=True)


def _follow(name: str, process: subprocess.Popen[bytes]) -> list[str]:
    """Collect the compiler's output, which names each package, and report now and then."""
    assert process.stderr is not None
    lines: list[str] = []
    began = reported = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            # Read line by line, but report even while the linker says nothing for long.
            if selector.select(timeout=_REPORT_EVERY_SECONDS):
                line = process.stderr.readline().decode(errors="replace")
                if not line:
                    return lines
                lines.append(line)
            now = time.monotonic()
            if now - reported >= _REPORT_EVERY_SECONDS:
                reported = now
                latest = lines[-1].strip() if lines else "looking at modules"
                say(f"  {name}: {now - began:.0f} s, {len(lines)} packages so far, now {latest}")
