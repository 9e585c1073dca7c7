"""Every end has an exit code, and one line for the kubelet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tunesmith_trainer
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import (
    TERMINATION_LIMIT_BYTES,
    TRAIN_FILE,
    ExitCode,
    Reason,
    TerminationMessage,
)
from tunesmith_trainer.failure import Preempted, TrainerError, exit_code_of, failure_from
from tunesmith_trainer.main import leave, main

from tests.unit.trainer.given import training_plan, write_prepared


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (TrainerError(Reason.DATASET_EMPTY, "no rows"), Reason.DATASET_EMPTY, ExitCode.USER_ERROR),
        (
            TrainerError(Reason.HUB_UNREACHABLE, "no route"),
            Reason.HUB_UNREACHABLE,
            ExitCode.DATA_UNREACHABLE,
        ),
        (MemoryError(), Reason.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            ),
            Reason.OUT_OF_MEMORY,
            ExitCode.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA out of memory."), Reason.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY),
        (Preempted(), Reason.PREEMPTED, ExitCode.PREEMPTED),
        (ValueError("shapes"), Reason.INTERNAL, ExitCode.INTERNAL),
    ],
)
def test_an_error_has_a_class_and_an_exit_code(
    error: BaseException, reason: Reason, code: ExitCode
) -> None:
    failure = failure_from(error)
    assert (failure.reason, exit_code_of(failure)) == (reason, code)
    assert code is not ExitCode.SUCCEEDED


def test_torch_runs_out_of_memory() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    failure = failure_from(raised.value)
    assert failure.failure_class is FailureClass.OUT_OF_MEMORY
    on_a_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert exit_code_of(failure_from(on_a_gpu)) is ExitCode.OUT_OF_MEMORY
    assert "training.microBatchSize" in failure.message


def test_the_last_word_is_one_line_that_fits(tmp_path: Path) -> None:
    error = TrainerError(Reason.DATASET_MALFORMED, "é" * 9000)
    leave(TerminationMessage(failure=failure_from(error)), tmp_path / "end")
    line = (tmp_path / "end").read_bytes()
    assert len(line) <= TERMINATION_LIMIT_BYTES
    assert b"\n" not in line
    assert json.loads(line)["failure"]["reason"] == "DatasetMalformed"


def plan(folder: Path) -> Path:
    """A plan whose prepared examples are changed after it was made."""
    write_prepared(folder)
    made = training_plan(folder / "model", folder)
    with (Path(str(made.prepared.path)) / TRAIN_FILE).open("a") as examples:
        examples.write("{}\n")
    path = folder / "plan.json"
    path.write_text(made.model_dump_json(by_alias=True))
    return path


def test_a_user_error_ends_the_process_with_its_code_and_message(tmp_path: Path) -> None:
    end = tmp_path / "end.json"
    arguments = ["--plan", str(plan(tmp_path)), "--termination", str(end), "--port", "0"]
    assert main(arguments) == ExitCode.USER_ERROR
    failure = TerminationMessage.model_validate_json(end.read_bytes()).failure
    assert failure is not None
    assert failure.reason is Reason.PREPARED_DATA_CHANGED
    assert "pvc://adapters/team/job/prepared/examples" in failure.message


def test_a_plan_that_cannot_be_read_is_an_internal_error(tmp_path: Path) -> None:
    end = tmp_path / "end.json"
    arguments = ["--plan", str(tmp_path / "none"), "--termination", str(end), "--port", "0"]
    assert main(arguments) == ExitCode.INTERNAL
    assert "FileNotFoundError" in end.read_text()


def test_data_is_checked_before_any_heavy_library_is_loaded(tmp_path: Path) -> None:
    """A typing mistake in a dataset must not cost the seconds that torch takes to load."""
    script = (
        "import sys; from tunesmith_trainer.main import main;"
        f"code = main(['--plan', {str(plan(tmp_path))!r}, '--port', '0',"
        f" '--termination', {str(tmp_path / 'end.json')!r}]);"
        "assert code == 10, code;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=environment())


def test_sigterm_is_preemption(tmp_path: Path) -> None:
    """Before the first step: there is nothing to save yet."""
    script = (
        "import sys, time, tunesmith_trainer.train.recipe as recipe;"
        "recipe.prepared_folder = lambda source: time.sleep(60);"
        "from tunesmith_trainer.main import main; print('up', flush=True); sys.exit(main())"
    )
    end = tmp_path / "end.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", script, "--port", "0"),
            *("--plan", str(plan(tmp_path)), "--termination", str(end)),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    assert "training for team/job" in process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == ExitCode.PREEMPTED
    assert json.loads(end.read_text())["failure"]["failureClass"] == "Preempted"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_pod_that_is_stopped_while_its_libraries_load_goes_at_once(tmp_path: Path) -> None:
    """The entry is the real one; what it loads is played, so that it never gets past that."""
    package = tmp_path / "tunesmith_trainer"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_bytes(
        Path(tunesmith_trainer.__path__[0], "__main__.py").read_bytes()
    )
    (package / "main.py").write_text("import time\nprint('loads', flush=True)\ntime.sleep(60)\n")
    pod = subprocess.Popen(
        [sys.executable, "-m", "tunesmith_trainer"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert pod.stdout
    assert pod.stdout.readline() == "loads\n"
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=30) == ExitCode.PREEMPTED
