"""Progress over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tunesmith.api.evalrun import EvaluationPhase
from tunesmith.api.job_status import TrainingPhase
from tunesmith.api.trainer_contract import METRICS_PATH, PROGRESS_PATH, ProgressReport
from tunesmith_trainer.progress import ProgressBoard, serve_progress


@pytest.fixture
def board() -> ProgressBoard:
    return ProgressBoard()


@pytest.fixture
def address(board: ProgressBoard) -> Iterator[str]:
    server = serve_progress(board, port=0)
    assert server is not None
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_the_report_is_read_as_the_contract_writes_it(board: ProgressBoard, address: str) -> None:
    board.training(phase=TrainingPhase.TRAINING, step=3, total_steps=10, eta="12m30s")
    board.training(loss=0.5)
    raw = read(address + PROGRESS_PATH)
    assert ProgressReport.model_validate_json(raw) == board.report()
    assert json.loads(raw)["training"] == {
        "phase": "Training",
        "step": 3,
        "totalSteps": 10,
        "loss": 0.5,
        "evalLosses": [],
        "eta": "12m30s",
    }


def test_numbers_are_metrics(board: ProgressBoard, address: str) -> None:
    board.training(phase=TrainingPhase.TRAINING, eval_loss=0.25)
    board.evaluation(phase=EvaluationPhase.BASE, items_done=16)
    lines = read(address + METRICS_PATH).splitlines()
    assert "tunesmith_training_eval_loss 0.25" in lines
    assert "tunesmith_evaluation_items_done 16" in lines
    assert not any("phase" in line for line in lines)


def test_other_paths_are_not_found(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(address + "/secrets")


def test_a_taken_port_does_not_stop_the_work(board: ProgressBoard) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        assert serve_progress(board, taken.getsockname()[1]) is None
