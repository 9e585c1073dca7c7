"""How far the trainer is: one board that the stages write and an HTTP endpoint that is read.

The operator pulls PROGRESS_PATH; Prometheus scrapes METRICS_PATH. A board that nobody can read
never stops the work.
"""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import EvaluationPhase, EvaluationProgress
from tunesmith.api.job_status import Progress, TrainingPhase
from tunesmith.api.trainer_contract import (
    METRICS_PATH,
    PROGRESS_PATH,
    PROGRESS_PORT,
    ProgressReport,
)

log = logging.getLogger(__name__)


class ProgressBoard:
    """The current ProgressReport. Safe to write from one thread and read from others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._report = ProgressReport()

    def report(self) -> ProgressReport:
        with self._lock:
            return self._report

    def training(self, **changes: Any) -> Progress:
        """Change the training's progress; what is not named stays."""
        with self._lock:
            before = self._report.training or Progress(phase=TrainingPhase.STARTING)
            after = before.model_copy(update=changes)
            self._report = self._report.model_copy(update={"training": after})
        return after

    def evaluation(self, **changes: Any) -> EvaluationProgress:
        """Change the evaluation's progress; what is not named stays."""
        with self._lock:
            before = self._report.evaluation or EvaluationProgress(phase=EvaluationPhase.STARTING)
            after = before.model_copy(update=changes)
            self._report = self._report.model_copy(update={"evaluation": after})
        return after

    def dataset(self, receipt: DatasetReceipt) -> None:
        with self._lock:
            self._report = self._report.model_copy(update={"dataset": receipt})


def prometheus_text(report: ProgressReport) -> str:
    """Every number of the report as a gauge, such as tunesmith_training_eval_loss."""
    lines = []
    for part in ("training", "evaluation", "dataset"):
        values = getattr(report, part)
        for name, value in () if values is None else values:
            if isinstance(value, int | float):
                metric = f"tunesmith_{part}_{name}"
                text = type(values).model_fields[name].description
                lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    return "".join(f"{line}\n" for line in lines)


def serve_progress(board: ProgressBoard, port: int = PROGRESS_PORT) -> ThreadingHTTPServer | None:
    """Answer requests from a daemon thread. None, and a line in the log, if the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case str(path) if path == PROGRESS_PATH:
                    self._answer("application/json", json.dumps(board.report().to_json()))
                case str(path) if path == METRICS_PATH:
                    self._answer("text/plain; version=0.0.4", prometheus_text(board.report()))
                case _:
                    self.send_error(404)

        def _answer(self, content_type: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Requests come every few seconds: they are not worth a line."""

    try:
        server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    except OSError as error:
        log.warning("progress cannot be read: port %d: %s", port, error)
        return None
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server
