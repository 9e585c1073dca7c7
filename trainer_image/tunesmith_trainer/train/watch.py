"""Watching the training loop: progress for people, and a stop when the loss is no number."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from tunesmith.api.job_status import TrainingPhase
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.machine import peak_memory_bytes
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train.order import StepOrder

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Speed:
    """Seconds and tokens of this run's steps; evaluations and checkpoints are left out.

    The first step compiles and warms up, so it does not count once there is another.
    """

    def __init__(self) -> None:
        self._mark = 0.0
        self.steps = 0
        self._seconds = 0.0
        self._tokens = 0

    def start(self) -> None:
        """Time begins to count here."""
        self._mark = time.monotonic()

    def step(self, tokens: int) -> None:
        if self.steps == 1:
            self._seconds, self._tokens = 0.0, 0
        self.steps += 1
        self._seconds += time.monotonic() - self._mark
        self._tokens += tokens
        self.start()

    @property
    def tokens_per_second(self) -> float | None:
        return round(self._tokens / self._seconds, 1) if self._seconds > 0 else None

    def seconds_for(self, steps: int) -> float:
        return steps * self._seconds / max(1, self.steps - 1)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes the board after every step."""

    def __init__(self, board: ProgressBoard, order: StepOrder) -> None:
        self._board = board
        self._order = order
        self._tokens: list[int] = []
        self._speed = Speed()
        self._last_line = -SECONDS_BETWEEN_LINES

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        losses = [
            round(entry["eval_loss"], 4) for entry in state.log_history if "eval_loss" in entry
        ]
        self._board.training(
            phase=TrainingPhase.TRAINING,
            step=state.global_step,
            total_steps=state.max_steps,
            percent=percent(state),
            epoch=round(state.epoch or 0.0, 2),
            eval_loss=losses[-1] if losses else None,
            eval_losses=losses,
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._order.set_epoch(state.global_step // self._order.steps)
        self._tokens = self._order.tokens_by_step()
        self._speed.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._speed.step(self._tokens[(state.global_step - 1) % self._order.steps])
        self._board.training(
            step=state.global_step,
            total_steps=state.max_steps,
            percent=percent(state),
            epoch=round(state.epoch or 0.0, 2),
            tokens_per_second=self._speed.tokens_per_second,
            peak_memory_bytes=peak_memory_bytes(),
            eta=duration(self._speed.seconds_for(state.max_steps - state.global_step)),
        )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._speed.start()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._speed.start()

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
            self._report_step(state, float(logs["loss"]))
        if "eval_loss" in logs:
            loss = round(float(logs["eval_loss"]), 4)
            before = self._board.training().eval_losses
            self._board.training(eval_loss=loss, eval_losses=[*before, loss])
            log.info("epoch %.2f: eval loss %.4f", state.epoch or 0.0, loss)

    def _report_step(self, state: TrainerState, loss: float) -> None:
        progress = self._board.training(loss=round(loss, 4))
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info(
                "step %d of %d, epoch %.2f: loss %.4f, %.0f tokens/s, %s left",
                state.global_step,
                state.max_steps,
                state.epoch or 0.0,
                loss,
                self._speed.tokens_per_second or 0.0,
                progress.eta,
            )


def percent(state: TrainerState) -> int:
    return int(100 * state.global_step // max(1, state.max_steps))


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
