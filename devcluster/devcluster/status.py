"""What runs, how large it is and of which version."""

from __future__ import annotations

from pathlib import Path

from devcluster.build import PROGRAMS, module_version
from devcluster.components import every_component
from devcluster.layout import Layout
from devcluster.processes import Processes
from devcluster.shell import output
from devcluster.simulation import KWOK


def print_status(layout: Layout) -> int:
    """Print one line per component; the exit status says whether all of them run."""
    processes = Processes(layout)
    names = [component.name for component in every_component(layout)]
    running = {name: processes.pid(name) for name in [*names, KWOK]}
    for name, pid in running.items():
        state = f"process {pid:>7}  {_resident_mebibytes(pid):>5} MiB" if pid else "not running"
        print(f"{name:<25} {state}")
    for program in PROGRAMS:
        if program.version_module:
            print(f"{program.version_module:<25} {module_version(program)}")
    for tool in ("containerd", "runc"):
        print(output([tool, "--version"]).splitlines()[0])
    print(f"kubeconfig                {layout.kubeconfig}")
    return 0 if all(running[name] for name in names) else 1


def _resident_mebibytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0
