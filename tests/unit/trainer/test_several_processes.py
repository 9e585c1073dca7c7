"""Several processes train what one would, whichever of them shares what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tunesmith.api.trainer_contract import ExitCode, Reason, TerminationMessage

pytest.importorskip("torch")
pytest.importorskip("peft")

from tunesmith_trainer import machine
from tunesmith_trainer.failure import failure_from
from tunesmith_trainer.several import outcome, torchrun_options

from tests.unit.trainer.forked import compute_exactly, terminate_at, train_in_processes
from tests.unit.trainer.given import MEMORY, TRAINING
from tests.unit.trainer.test_checkpoints import plan
from tests.unit.trainer.test_resume import Told, finish, plan_in, saved_steps

#: 31 rows in steps of 8: the last step of an epoch leaves one process without a sequence.
QUIET = {"lora": {"dropout": 0}, "training": {**TRAINING, "epochs": 2, "packing": False}}


LONG = {"training": {**TRAINING, "epochs": 100}}


def shared(parallelism: str) -> dict[str, object]:
    return {
        "memory": {
            **MEMORY,
            "gradientAccumulation": 1,
            "processes": 2,
            "parallelism": parallelism,
        },
        "processesPerNode": 2,
    }


def test_torchrun_is_told_to_stop_by_its_parent(tiny_model: Path, tmp_path: Path) -> None:
    """The real thing: a pod's own process, torchrun below it, and two workers below that."""
    plan = plan_in(tiny_model, tmp_path, **shared("DDP"), **LONG)
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    end = tmp_path / "end.json"
    pod = subprocess.Popen(
        [
            *(sys.executable, "-m", "tunesmith_trainer", "--port", "0"),
            *("--plan", str(tmp_path / "plan.json"), "--termination", str(end)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not saved_steps(tmp_path) and pod.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=120) == ExitCode.PREEMPTED
    failure = TerminationMessage.model_validate_json(end.read_bytes()).failure
    assert failure is not None
    assert failure.reason is Reason.PREEMPTED


def said(folder: Path, rank: int, error: BaseException, at: int) -> None:
    path = folder / f"{rank}.json"
    path.write_text(TerminationMessage(failure=failure_from(error)).to_line())
    os.utime(path, ns=(at, at))


def test_the_first_failure_is_the_cause_of_the_others(tmp_path: Path) -> None:
    said(tmp_path, 0, RuntimeError("Connection closed by peer"), at=2_000)
    said(tmp_path, 1, MemoryError(), at=1_000)
    message, code = outcome(tmp_path, 1, told=False)
    assert message.failure is not None
    assert (message.failure.reason, code) == (Reason.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY)


def test_a_worker_that_was_killed_is_told_of(tmp_path: Path) -> None:
    message, code = outcome(tmp_path, 1, told=False)
    assert message.failure is not None
    assert code is ExitCode.INTERNAL
    assert "ended without a word" in message.failure.message


def test_workers_that_were_killed_before_they_could_speak_were_preempted(tmp_path: Path) -> None:
    assert outcome(tmp_path, 1, told=True)[1] is ExitCode.PREEMPTED


def test_pods_of_one_training_meet_at_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    made = plan(nodes=4, processesPerNode=8, rendezvous="job-train-1-0.job-train-1:29500")
    options = torchrun_options(made)
    assert {"--nnodes=4", "--nproc-per-node=8", "--node-rank=3"} <= set(options)
    assert "--master-addr=job-train-1-0.job-train-1" in options
    assert "--master-port=29500" in options


@pytest.fixture(scope="module")
def alone(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "has_bfloat16_products", lambda: False)
        return finish(plan_in(tiny_model, folder, **QUIET), folder)


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP2"])
def test_two_processes_learn_what_one_learns_and_exchange_checkpoints(
    tiny_model: Path, tmp_path: Path, alone: Told, parallelism: str
) -> None:
    """Two are stopped, one goes on, is stopped, and two finish: the losses are those of one."""
    two = plan_in(tiny_model, tmp_path, **QUIET, **shared(parallelism))
    one = plan_in(tiny_model, tmp_path, **QUIET)
    codes, _ = train_in_processes(two, tmp_path, compute_exactly, partial(terminate_at, 2), count=2)
    assert codes == [ExitCode.PREEMPTED] * 2, "one was told, and both agreed"
    assert saved_steps(tmp_path) == [2]
    codes, _ = train_in_processes(one, tmp_path, compute_exactly, partial(terminate_at, 5))
    assert codes == [ExitCode.PREEMPTED]
    codes, words = train_in_processes(two, tmp_path, compute_exactly, count=2)
    assert codes == [ExitCode.SUCCEEDED] * 2
    assert words[0] == words[1]
    assert words[0].training is not None
    folder = tmp_path / "out" / words[0].training.artifact.uri.rsplit("/", 1)[-1]
    told = Told(words[0].training, folder)
    assert told.losses == pytest.approx(alone.losses, rel=1e-4)
    assert told.eval_losses == pytest.approx(alone.eval_losses, rel=1e-4)
    assert (told.lineage.run.attempts, told.lineage.run.resumed_from_step) == (3, 5)
