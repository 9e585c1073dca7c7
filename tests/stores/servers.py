"""Real servers on this machine: an S3 store, an OCI registry, files behind https."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

LOCALHOST = "127.0.0.1"
START_SECONDS = 20.0


@dataclass(frozen=True)
class S3Server:
    """An S3 store. ``root`` has a folder for each bucket, and a file for each object."""

    endpoint: str
    access_key: str
    secret_key: str
    root: Path

    def environment(self, prefix: str) -> dict[str, str]:
        """What the operator gives a pod for a source with this prefix."""
        return {
            f"{prefix}_AWS_ACCESS_KEY_ID": self.access_key,
            f"{prefix}_AWS_SECRET_ACCESS_KEY": self.secret_key,
            f"{prefix}_AWS_ENDPOINT_URL": self.endpoint,
        }


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process from the moment it answers until the end of the block."""
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex((LOCALHOST, port)) == 0:
                    break
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)
