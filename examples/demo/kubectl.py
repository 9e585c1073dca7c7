"""kubectl as a user would call it, for the demonstration and the tests."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


class KubectlError(Exception):
    """kubectl refused; the message is what it printed."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace, with the kubeconfig of the environment."""

    namespace: str

    def run(self, *arguments: str, stdin: str | bytes | None = None, timeout: float = 120) -> str:
        """What kubectl prints. Raises KubectlError when it does not succeed."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            input=content,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise KubectlError(done.stderr.decode().strip())
        return done.stdout.decode()

    def apply(self, manifest: str | Object) -> None:
        """``kubectl apply`` of a file's name or of an object."""
        if isinstance(manifest, str):
            self.run("apply", "-f", manifest)
        else:
            self.run("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str) -> Object:
        return dict(json.loads(self.run("get", kind, name, "-o", "json")))

    def find(self, kind: str, name: str) -> Object | None:
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        text = self.run("get", kind, "-l", selector, "-o", "json")
        return list(json.loads(text)["items"])

    def wait(self, target: str, condition: str, seconds: float) -> None:
        """``kubectl wait``, which is how a user's script waits."""
        self.run(
            "wait",
            target,
            f"--for=condition={condition}",
            f"--timeout={seconds:.0f}s",
            timeout=seconds + 30,
        )

    @contextmanager
    def port_forward(self, target: str, port: int) -> Iterator[str]:
        """An address on this machine that leads to a Service or pod."""
        local = _free_port()
        process = subprocess.Popen(
            ["kubectl", "--namespace", self.namespace, "port-forward", target, f"{local}:{port}"],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for_port(local, process)
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait(10)


def conditions(raw: Object) -> dict[str, Object]:
    """An object's conditions by type."""
    return {each["type"]: each for each in raw.get("status", {}).get("conditions", [])}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise KubectlError("kubectl port-forward did not open its port")
