"""Watching the training loop: progress for people, and a stop when the loss is no number."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from tunesmith.api.finetunejob import TrainingPhase
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.machine import peak_memory_bytes
from tunesmith_trainer.progress import ProgressBoard

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes the board after every step. Speeds are of this run's steps, evaluation left out."""

    def __init__(self, board: ProgressBoard) -> None:
        self._board = board
        self._step_began = 0.0
        self._step_seconds = 0.0
        self._steps = 0
        self._last_line = -SECONDS_BETWEEN_LINES
        self._eval_losses: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._board.training(
            phase=TrainingPhase.TRAINING, step=0, total_steps=state.max_steps, percent=0, epoch=0.0
        )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._step_began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._step_seconds += time.monotonic() - self._step_began
        self._steps += 1
        remaining = (state.max_steps - state.global_step) * self._step_seconds / self._steps
        self._board.training(
            step=state.global_step,
            total_steps=state.max_steps,
            percent=100 * state.global_step // max(1, state.max_steps),
            epoch=round(state.epoch or 0.0, 2),
            peak_memory_bytes=peak_memory_bytes(),
            eta=duration(remaining),
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        for name in ("loss", "eval_loss"):
            if name in logs:
                require_finite(name, float(logs[name]), state.global_step)
        if "loss" in logs:
            self._report_step(state, float(logs["loss"]), logs.get("num_tokens"))
        if "eval_loss" in logs:
            self._eval_losses.append(round(float(logs["eval_loss"]), 4))
            self._board.training(
                eval_loss=self._eval_losses[-1], eval_losses=list(self._eval_losses)
            )
            log.info("epoch %.2f: eval loss %.4f", state.epoch or 0.0, float(logs["eval_loss"]))

    def _report_step(self, state: TrainerState, loss: float, tokens: float | None) -> None:
        speed = round(tokens / self._step_seconds, 1) if tokens and self._step_seconds else None
        progress = self._board.training(loss=round(loss, 4), tokens_per_second=speed)
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info(
                "step %d of %d, epoch %.2f: loss %.4f, %.0f tokens/s, %s left",
                state.global_step,
                state.max_steps,
                state.epoch or 0.0,
                loss,
                speed or 0.0,
                progress.eta,
            )


def require_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainerError(
            Reason.LOSS_NOT_FINITE,
            f"{name} became {value} at step {step}: lower training.learningRate (0.0002 suits "
            "LoRA), or look for broken examples in the dataset",
        )


def duration(seconds: float) -> str:
    """A duration as Kubernetes writes it: 45s, 12m30s, 3h5m."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
