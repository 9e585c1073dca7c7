"""When a training evaluates, saves and stops."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from tunesmith_trainer.processes import any_of_all
from tunesmith_trainer.train.lasting import is_exhausted
from tunesmith_trainer.train.stopping import StopRequest

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

SECONDS_PER_MINUTE = 60.0


class Keeping(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves at the end of each epoch, saves by the clock and when told to stop.

    A step that ends an epoch is saved after its evaluation, never before: an attempt that goes on
    from it would skip the evaluation.
    """

    def __init__(
        self,
        stop: StopRequest,
        *,
        steps: int,
        minutes: float,
        patience: int | None,
        evaluates: bool,
    ) -> None:
        self._stop = stop
        self._steps = steps
        self._seconds = minutes * SECONDS_PER_MINUTE
        self._patience = patience
        self._evaluates = evaluates
        self._saved = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step % self._steps == 0:
            return
        if self._stop.agreed():
            log.info("told to stop: saving step %d", state.global_step)
            control.should_training_stop = True
            control.should_save = True
        elif any_of_all(time.monotonic() - self._saved >= self._seconds):
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step % self._steps:
            return  # stopped in the middle
        control.should_evaluate = self._evaluates
        control.should_save = True
        if self._stop.agreed():
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if is_exhausted(state, self._patience):
            log.info("no better for %d evaluations: stopping early", self._patience)
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._saved = time.monotonic()
