"""Plays the trainer inside a pod: keeps its contract with the operator, and trains nothing.

A fake, because the tests that use it are about the operator, the API server and the kubelet: what
happens to Jobs, pods and names. It leaves the file ``trains-JOB`` beside the results, runs until
``finish-JOB`` lies there, and leaves ``stopped-JOB`` when it is told to stop. PLAYED says how it
fails, if at all.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

# As the real trainer does: until a handler is there, a container's first process loses SIGTERM.
signal.signal(signal.SIGTERM, lambda *_: os._exit(13))

# ruff: noqa: E402
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.job_status import Artifact, Progress, TrainingPhase
from tunesmith.api.memory import ActivationCheckpointing, MemoryPlan, Optimizer
from tunesmith.api.method import Method
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import (
    CLAIMS_FOLDER,
    PLAN_PATH,
    PLAN_READER,
    TERMINATION_PATH,
    ExitCode,
    PreparationOutcome,
    PreparationPlan,
    Reason,
    ReportedFailure,
    TerminationMessage,
    TrainingOutcome,
    TrainingPlan,
)

RESULTS = Path(CLAIMS_FOLDER) / "adapters"
DIGEST = "sha256:" + "a" * 64


def main() -> None:
    plan = PLAN_READER.validate_json(Path(PLAN_PATH).read_text())
    played = os.environ.get("PLAYED", "")
    match plan:
        case PreparationPlan():
            if played == Reason.DOES_NOT_FIT:
                fail(FailureClass.USER_ERROR, Reason.DOES_NOT_FIT, ExitCode.USER_ERROR)
            print("the data is prepared", flush=True)
            say(TerminationMessage(preparation=prepare(plan)))
        case TrainingPlan():
            if plan.rendezvous:
                meet(plan.rendezvous, plan.nodes)
            if played == Reason.OUT_OF_MEMORY and plan.memory.micro_batch_size > 1:
                fail(FailureClass.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY)
            wait_for_the_end(plan.owner.rpartition("/")[2])
            say(TerminationMessage(training=train(plan)))


def prepare(plan: PreparationPlan) -> PreparationOutcome:
    return PreparationOutcome(
        uri=f"{plan.output.uri}/prepared/0123456789abcdef",
        dataset=receipt(),
        memory=MemoryPlan(
            method=Method.LORA,
            micro_batch_size=4,
            gradient_accumulation=2,
            activation_checkpointing=ActivationCheckpointing.OFF,
            optimizer=Optimizer.ADAMW,
        ),
    )


def train(plan: TrainingPlan) -> TrainingOutcome:
    return TrainingOutcome(
        artifact=Artifact(uri=f"{plan.output.uri}/played", digest=DIGEST, base_model_digest=DIGEST),
        dataset=plan.dataset,
        progress=Progress(phase=TrainingPhase.DONE),
    )


def receipt() -> DatasetReceipt:
    return DatasetReceipt(
        digest=DIGEST,
        rows=500,
        held_out_rows=300,
        held_out_digest=DIGEST,
        duplicate_rows=0,
        train_rows=200,
    )


def meet(rendezvous: str, nodes: int) -> None:
    """Every pod reaches the first one under its name, or it never ends."""
    host, _, port = rendezvous.rpartition(":")
    if os.environ["JOB_COMPLETION_INDEX"] == "0":
        with socket.create_server(("", int(port))) as server:
            for _ in range(nodes - 1):
                server.accept()
        return
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)


def wait_for_the_end(job: str) -> None:
    def stop(_: int, __: FrameType | None) -> None:
        (RESULTS / f"stopped-{job}").touch()
        sys.exit(ExitCode.PREEMPTED)

    signal.signal(signal.SIGTERM, stop)
    print(f"{job} trains", flush=True)
    (RESULTS / f"trains-{job}").touch()
    while not (RESULTS / f"finish-{job}").exists():
        time.sleep(0.1)


def fail(failure_class: FailureClass, reason: Reason, code: ExitCode) -> None:
    told = ReportedFailure(failure_class=failure_class, reason=reason, message="As it is played.")
    say(TerminationMessage(failure=told))
    sys.exit(code)


def say(word: TerminationMessage) -> None:
    Path(TERMINATION_PATH).write_text(word.to_line())


if __name__ == "__main__":
    main()
