"""Starting, watching and killing the cluster's components, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from devcluster.control_groups import component_group
from devcluster.layout import Layout
from devcluster.progress import ClusterError
from devcluster.shell import system_environment


@dataclass(frozen=True)
class Component:
    """One long-running program of the cluster."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A started process; its start time tells it from a later process with the same number."""

    pid: int
    started: str


#: Go collects garbage when the heap has doubled; on two cores with memory to spare, a third of the
#: API server's time went there. With 5,000 jobs its heap would grow to 14 GB: from this size on it
#: collects as often as it must to stay there.
GARBAGE_COLLECTION = {"GOGC": "400", "GOMEMLIMIT": "5GiB"}


class Processes:
    """The running components of one cluster."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def start(self, component: Component) -> int:
        """Start a component, unless it runs already."""
        running = self.pid(component.name)
        if running is not None:
            return running
        log = self._log(component.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            process = subprocess.Popen(
                component.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=system_environment() | GARBAGE_COLLECTION,
                start_new_session=True,
                preexec_fn=_enter(component_group(component.name) / "cgroup.procs"),
            )
        self._write(component.name, process.pid)
        return process.pid

    def pid(self, name: str) -> int | None:
        """The component's process, if it is alive."""
        try:
            record = Record(**json.loads(self._record(name).read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return record.pid if _start_time(record.pid) == record.started else None

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal: SIGKILL to crash a component, SIGSTOP to hang it, SIGCONT to go on."""
        pid = self.pid(name)
        if pid is None:
            raise ClusterError(f"{name} does not run")
        os.kill(pid, number)

    def kill(self, name: str) -> None:
        """Kill a component, if it runs, and wait until it is gone."""
        pid = self.pid(name)
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self.pid(name) is not None:
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} (process {pid}) does not die")
            time.sleep(0.02)

    def require_alive(self, name: str) -> None:
        if self.pid(name) is None:
            log = self._log(name)
            tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-15:])
            raise ClusterError(f"{name} has ended; the end of {log}:\n{tail}")

    def _log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self._layout.records / f"{name}.json"

    def _write(self, name: str, pid: int) -> None:
        record = self._record(name)
        record.parent.mkdir(parents=True, exist_ok=True)
        started = _start_time(pid)
        record.write_text(json.dumps(asdict(Record(pid, started or ""))))


def _enter(group: Path) -> Callable[[], None]:
    """Make the new process join the group before it runs the component."""

    def enter() -> None:
        group.write_text(str(os.getpid()))

    return enter


def _start_time(pid: int) -> str | None:
    """When the process started, by the kernel's clock; nothing if it is dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the program's name, may contain blanks: count from behind it.
    fields = text.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    if state != "Z" or _threads(pid) > 1:
        return started
    _reap(pid)
    return None


def _threads(pid: int) -> int:
    """How many threads are left: the first may have died while others still hold the sockets."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _reap(pid: int) -> None:
    """A test that started the component is its parent, and must bury it."""
    with suppress(ChildProcessError):  # another process's child
        os.waitpid(pid, os.WNOHANG)
