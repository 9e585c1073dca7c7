"""A real operator process, which can be killed and is started again as the kubelet would.

It runs ``tunesmith.main`` like a pod's container. To spare hundreds of imports it is forked from a
process that has done them; one whose surroundings must differ from the first instruction on
(another clock, another host name) is a Python of its own.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from kubernetes.aio.config import kube_config
from tunesmith import main as operator

HERE = Path(__file__).parent
PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload([__name__])
RESTART_SECONDS = 0.1
#: Said once by every process that could start.
HAS_STARTED = "everything that is there has been seen"


@dataclass(frozen=True)
class Surroundings:
    """What an operator runs in."""

    #: Of the API server, as this operator sees it.
    address: str
    folder: Path
    lease_namespace: str
    namespaces: tuple[str, ...]
    #: A second operator needs a name of its own.
    host_name: str = ""
    #: How far its clock is ahead.
    clock_seconds: float = 0.0
    resync_seconds: float = 600.0

    def environment(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self._kubeconfig()),
            "TUNESMITH_TRAINER_IMAGE": "tunesmith.dev/trainer:dev",
            "TUNESMITH_SERVING_IMAGE": "tunesmith.dev/vllm:dev",
            "TUNESMITH_OPERATOR_IMAGE": "tunesmith.dev/operator:dev",
            "TUNESMITH_NAMESPACE": self.lease_namespace,
            "TUNESMITH_NAMESPACES": " ".join(self.namespaces),
            "TUNESMITH_HEALTH_PORT": "0",
            "TUNESMITH_PROGRESS_INTERVAL_SECONDS": "1",
            "TUNESMITH_FIRST_RETRY_DELAY_SECONDS": "0.2",
            "TUNESMITH_RESYNC_SECONDS": str(self.resync_seconds),
        }

    def _kubeconfig(self) -> Path:
        """Plain HTTP to the proxy, which has the credentials."""
        path = self.folder / "kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.address}}],
            "users": [{"name": "operator", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        }
        path.write_text(json.dumps(content))
        return path


@dataclass
class OperatorProcess:
    """One operator. Whenever its process ends, another follows, until ``close``."""

    surroundings: Surroundings
    #: How often it was started.
    starts: int = 0
    #: Exit codes of processes that ended by themselves.
    ended: list[int] = field(default_factory=list)
    #: Those of them that had started.
    ended_at_work: list[int] = field(default_factory=list)
    pid: int = 0
    started_at: float = 0.0
    _killed: set[int] = field(default_factory=set)
    _keeping: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        return self.surroundings.folder / f"operator{self.surroundings.host_name}.log"

    def start(self) -> None:
        self._keeping = asyncio.ensure_future(self._keep())

    def kill(self) -> None:
        """As the kernel kills: no last word, no lease given back."""
        self._killed.add(self.pid)
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def close(self) -> None:
        if self._keeping:
            self._keeping.cancel()
        if self.pid:
            self.kill()

    async def _keep(self) -> None:
        while True:
            before = self._started_well()
            process = await asyncio.to_thread(self._start)
            self.starts += 1
            code = await _end_of(process)
            if process.pid not in self._killed:
                self.ended.append(code)
                if self._started_well() > before:
                    self.ended_at_work.append(code)
            await asyncio.sleep(RESTART_SECONDS)

    def _started_well(self) -> int:
        """How many processes could start so far."""
        return self.log.read_text().count(HAS_STARTED) if self.log.exists() else 0

    def _start(self) -> ForkServerProcess | subprocess.Popen[bytes]:
        around, environment = self.surroundings, self.surroundings.environment()
        self.started_at = time.monotonic()
        if not around.host_name and not around.clock_seconds:
            forked = PREPARED.Process(target=_run, args=(environment, str(self.log)), daemon=True)
            forked.start()
            assert forked.pid is not None
            self.pid = forked.pid
            return forked
        started = _fresh(around, environment, self.log)
        self.pid = started.pid
        return started


def _run(environment: dict[str, str], log: str) -> None:
    """In the forked process: from here on it is the operator."""
    os.environ.update(environment)
    # It was read when it was imported.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    operator.main()


def _fresh(around: Surroundings, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    python = [sys.executable, "-m", "tunesmith.main"]
    if around.host_name:
        named = f'hostname {around.host_name} && exec "$0" "$@"'
        python = ["unshare", "--uts", "sh", "-c", named, *python]
    if around.clock_seconds:
        paths = [str(HERE / "skewed_clock"), os.environ.get("PYTHONPATH", "")]
        environment |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "CLOCK_AHEAD_SECONDS": str(around.clock_seconds),
        }
    with log.open("ab") as sink:
        return subprocess.Popen(python, env={**os.environ, **environment}, stdout=sink, stderr=sink)


async def _end_of(process: ForkServerProcess | subprocess.Popen[bytes]) -> int:
    """Wait, without a thread, until the process is gone; its exit code."""
    if isinstance(process, ForkServerProcess):
        await _readable(process.sentinel)
        process.join(5)
        return process.exitcode or 0
    handle = os.pidfd_open(process.pid)
    try:
        await _readable(handle)
    finally:
        os.close(handle)
    return process.wait(5)


async def _readable(handle: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(handle)
