"""Training with several processes: torchrun starts them, and this one says how they ended.

Every pod runs this parent. It has no part in the training: it passes SIGTERM on to the workers
themselves, for torchrun would give them 30 seconds, whatever the pod's own grace period is. Each
worker leaves its last word in a folder; the first that failed is the cause of what the others say.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tunesmith.api.trainer_contract import ExitCode, Reason, TerminationMessage, TrainingPlan

from tunesmith_trainer.failure import Preempted, TrainerError, exit_code_of, failure_from
from tunesmith_trainer.processes import are_several, rank

log = logging.getLogger(__name__)

#: Folder of the workers' last words and process ids.
ENDINGS_VARIABLE = "TUNESMITH_ENDINGS"
#: Kubernetes' number of the pod in an Indexed Job.
NODE_VARIABLE = "JOB_COMPLETION_INDEX"
POLL_SECONDS = 0.1
#: For the first pod's name to be known, and for all pods to meet.
MEETING_SECONDS = 900


def wants_several(plan: object) -> bool:
    """Whether this process is the parent of a training with several."""
    if not isinstance(plan, TrainingPlan) or ENDINGS_VARIABLE in os.environ:
        return False
    return plan.nodes * plan.processes_per_node > 1


def ending_file(default: Path) -> Path:
    """Where this process's last word goes: a worker's is for its parent."""
    folder = os.environ.get(ENDINGS_VARIABLE)
    return Path(folder) / f"{rank()}.json" if folder and are_several() else default


def register() -> None:
    """Tell the parent which process this worker is."""
    folder = os.environ.get(ENDINGS_VARIABLE)
    if folder and are_several():
        (Path(folder) / f"{rank()}.pid").write_text(str(os.getpid()))


def run_several(
    plan: TrainingPlan, plan_file: Path, port: int
) -> tuple[TerminationMessage, ExitCode]:
    """Start this pod's workers and wait for their end."""
    with tempfile.TemporaryDirectory(prefix="endings-") as folder:
        endings = Path(folder)
        environment = {
            name: value
            for name, value in os.environ.items()
            # Each worker takes its share of the processors.
            if name != "OMP_NUM_THREADS"
        } | {ENDINGS_VARIABLE: folder}
        if plan.rendezvous:
            wait_for_name(plan.rendezvous)
        command = [
            *(sys.executable, "-m", "torch.distributed.run", *torchrun_options(plan)),
            *("-m", "tunesmith_trainer", "--plan", str(plan_file), "--port", str(port)),
        ]
        agent = subprocess.Popen(command, env=environment)
        told = wait(agent, endings)
        return outcome(endings, agent.returncode, told)


def torchrun_options(plan: TrainingPlan) -> list[str]:
    options = [f"--nnodes={plan.nodes}", f"--nproc-per-node={plan.processes_per_node}"]
    # A worker that failed is tried again by the operator, in a new pod.
    options += ["--max-restarts=0", "--monitor-interval=0.2"]
    if plan.nodes == 1:
        return [
            *options,
            *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
        ]
    host, _, port = (plan.rendezvous or "").rpartition(":")
    # Static: the first pod holds the first process, whose progress and last word are read.
    return [
        *options,
        f"--node-rank={os.environ.get(NODE_VARIABLE, '0')}",
        *(f"--master-addr={host}", f"--master-port={port}"),
        *("--rdzv-backend=static", f"--rdzv-conf=timeout={MEETING_SECONDS}"),
    ]


def wait_for_name(rendezvous: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """A headless service knows the first pod only once that pod has started."""
    host = rendezvous.rpartition(":")[0]
    deadline = time.monotonic() + MEETING_SECONDS
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TrainerError(
                    Reason.INTERNAL,
                    f"the first pod cannot be found under {host} ({error}) after "
                    f"{MEETING_SECONDS} s: see whether it was scheduled",
                ) from error
        sleep(1.0)


def wait(agent: subprocess.Popen[bytes], endings: Path) -> bool:
    """Until torchrun is done; gives whether the pod was told to stop."""
    told = False

    def tell(*_: object) -> None:
        nonlocal told
        told = True

    before = signal.signal(signal.SIGTERM, tell)
    passed_on: set[str] = set()
    try:
        while agent.poll() is None:
            if told:
                pass_on(endings, passed_on)
            time.sleep(POLL_SECONDS)
    finally:
        signal.signal(signal.SIGTERM, before)
    return told


def pass_on(endings: Path, passed_on: set[str]) -> None:
    """SIGTERM to each worker, once."""
    for path in endings.glob("*.pid"):
        pid = path.read_text()
        if pid and pid not in passed_on:
            passed_on.add(pid)
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)


def outcome(endings: Path, code: int, told: bool) -> tuple[TerminationMessage, ExitCode]:
    """What the workers made, or the failure that came first."""
    paths = sorted(endings.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    messages = [TerminationMessage.model_validate_json(path.read_bytes()) for path in paths]
    for message in messages:
        if message.failure is not None:
            return message, exit_code_of(message.failure)
    if code == 0 and messages:
        return messages[0], ExitCode.SUCCEEDED  # all say the same
    error: BaseException = (
        Preempted()
        if told
        else TrainerError(
            Reason.INTERNAL,
            f"a training process ended without a word (torchrun's code is {code}): it was killed, "
            "most likely as the pod ran out of memory; ask for more in resources.memory",
        )
    )
    failure = failure_from(error)
    return TerminationMessage(failure=failure), exit_code_of(failure)
