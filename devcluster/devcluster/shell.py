"""Running other programs and keeping what they said when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from devcluster.progress import ClusterError

# Where Debian keeps iptables, runc and the mount programs: not on every user's path.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def system_environment() -> dict[str, str]:
    """The environment for system programs, whatever virtual environment is active here."""
    return {"PATH": SYSTEM_PATH, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}


def output(command: Sequence[str | Path], stdin: str | None = None) -> str:
    """Run a system program and return what it printed; a failure carries its error text."""
    arguments = [str(argument) for argument in command]
    done = subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        env=system_environment(),
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
