"""The operator's process, as the kernel of this machine sees it into its pod."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from devcluster.control_groups import hierarchies

from examples.demo.kubectl import Kubectl, KubectlError, Object

SYSTEM = Kubectl("tunesmith-system")
DEPLOYMENT = "deployment/tunesmith-operator"
SELECTOR = "app.kubernetes.io/name=tunesmith,app.kubernetes.io/component=operator"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class OperatorProcess:
    """One start of the operator."""

    pod: str
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """Of all its threads, and of children that have ended."""
        text = self._read("stat").rpartition(")")[2].split()
        return sum(int(each) for each in text[11:15]) / TICKS

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        return self._status("VmRSS")

    @property
    def peak_resident(self) -> int:
        """The most that it ever held, since it started or since `forget_peak`."""
        return self._status("VmHWM")

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def go_first(self) -> None:
        """From now on it runs as soon as it has something to do, before all else on this machine.

        In the pods' control group no process may; it leaves that of the processors.
        """
        top = next(each for each in hierarchies() if (each / "cpu.shares").exists())
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            (top / "tasks").write_text(thread)
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(1))

    def require_alive(self) -> None:
        """Raises SystemExit when the kubelet had to start its container again."""
        pod = json.loads(SYSTEM.run("get", "pod", self.pod, "-o", "json"))
        for each in pod["status"]["containerStatuses"]:
            if each["restartCount"]:
                raise SystemExit(f"the operator ended by itself: {each['lastState']}")

    def crash(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _status(self, name: str) -> int:
        for line in self._read("status").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise SystemExit(f"the kernel does not tell {name} of process {self.pid}")

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()


def stop_operator() -> None:
    SYSTEM.run("scale", DEPLOYMENT, "--replicas=0")
    SYSTEM.run("wait", "pod", "-l", SELECTOR, "--for=delete", "--timeout=60s")


def start_operator(seconds: float = 120) -> OperatorProcess:
    """The operator, once it holds the lease."""
    SYSTEM.run("scale", DEPLOYMENT, "--replicas=1")
    return leading_operator(seconds)


def leading_operator(seconds: float = 120, not_pod: str = "") -> OperatorProcess:
    """The operator that holds the lease; with ``not_pod`` not that of this pod."""
    deadline = time.monotonic() + seconds
    while True:
        for pod in _pods():
            if pod["metadata"]["name"] != not_pod and (found := _leading(pod)):
                return found
        if time.monotonic() > deadline:
            raise SystemExit(f"no operator leads after {seconds:.0f} s")
        time.sleep(0.25)


def _pods() -> list[Object]:
    return list(json.loads(SYSTEM.run("get", "pods", "-l", SELECTOR, "-o", "json"))["items"])


def _leading(pod: Object) -> OperatorProcess | None:
    name = pod["metadata"]["name"]
    path = f"/api/v1/namespaces/{SYSTEM.namespace}/pods/{name}:8080/proxy/readyz"
    try:
        if "leading" not in SYSTEM.run("get", "--raw", path):
            return None
    except KubectlError:
        return None  # it starts, or ends
    pid = _pid(pod["metadata"]["uid"])
    return OperatorProcess(name, pid) if pid else None


def _pid(pod_uid: str) -> int | None:
    """The process of a pod, which its control group names."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            if b"tunesmith.main" in command and pod_uid in (folder / "cgroup").read_text():
                return int(folder.name)
        except OSError:
            continue  # ended meanwhile
    return None
