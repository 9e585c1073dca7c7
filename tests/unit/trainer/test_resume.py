"""An attempt goes on where the last one ended, as if nothing had happened."""

from __future__ import annotations

import json
import logging
import random
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.trainer_contract import ExitCode, TrainingOutcome, TrainingPlan

pytest.importorskip("torch")
pytest.importorskip("peft")

from tunesmith_trainer import artifact, machine
from tunesmith_trainer.failure import Preempted
from tunesmith_trainer.lineage import Lineage
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train import keeping
from tunesmith_trainer.train.recipe import train
from tunesmith_trainer.train.watch import Watch

from tests.unit.trainer.forked import kill_at, terminate_at, train_in_processes
from tests.unit.trainer.given import MEMORY, TRAINING, training_plan, write_prepared

#: Dropout draws random numbers in every step: their state must come back, too.
DROPOUT = {"lora": {"dropout": 0.1}, "training": {**TRAINING, "epochs": 3}}
#: 31 rows of 8 per step, an epoch: 2 rows are the dev slice.
STEPS = 12


@dataclass(frozen=True)
class Told:
    """A finished training."""

    outcome: TrainingOutcome
    folder: Path

    @property
    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / artifact.METRICS_FILE).read_text())
        return found

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.history if "loss" in entry]

    @property
    def eval_losses(self) -> list[float]:
        return [entry["eval_loss"] for entry in self.history if "eval_loss" in entry]

    @property
    def lineage(self) -> Lineage:
        return Lineage.model_validate_json((self.folder / artifact.LINEAGE_FILE).read_bytes())


def finish(plan: TrainingPlan, folder: Path, board: ProgressBoard | None = None) -> Told:
    outcome = train(plan, board or ProgressBoard())
    return Told(outcome, folder / "out" / outcome.artifact.uri.rsplit("/", 1)[-1])


def plan_in(tiny_model: Path, folder: Path, **changes: Any) -> TrainingPlan:
    if not (folder / "out").exists():
        write_prepared(folder)
    return training_plan(tiny_model, folder, **{**DROPOUT, **changes})


def saved_steps(folder: Path) -> list[int]:
    found = (folder / "out" / "checkpoints").glob("*/step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """SIGTERM during a step, in this very process."""
    stepped = Watch.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        stepped(self, args, state, control, **rest)
        if state.global_step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Watch, "on_step_end", on_step_end)


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("uninterrupted")
    told = finish(plan_in(tiny_model, folder), folder)
    assert len(told.losses) == STEPS
    return told


def test_after_a_kill_every_loss_is_the_same(
    tiny_model: Path, tmp_path: Path, uninterrupted: Told
) -> None:
    step = random.randrange(1, STEPS)
    plan = plan_in(tiny_model, tmp_path)
    codes, words = train_in_processes(plan, tmp_path, partial(kill_at, step))
    assert (codes, words) == ([-signal.SIGKILL], [])
    assert max(saved_steps(tmp_path)) == step
    told = finish(plan, tmp_path)
    assert told.losses == uninterrupted.losses, step
    assert told.eval_losses == uninterrupted.eval_losses, step
    assert told.outcome.artifact.digest == uninterrupted.outcome.artifact.digest
    assert told.lineage.run.resumed_from_step == step
    assert told.lineage.run.attempts == 2


def test_sigterm_saves_the_running_step_and_is_no_success(
    tiny_model: Path, tmp_path: Path, uninterrupted: Told
) -> None:
    plan = plan_in(tiny_model, tmp_path)
    codes, (word,) = train_in_processes(plan, tmp_path, partial(terminate_at, 5))
    assert codes == [ExitCode.PREEMPTED]
    assert word.failure is not None
    assert word.failure.failure_class == "Preempted"
    assert max(saved_steps(tmp_path)) == 5
    board = ProgressBoard()
    assert finish(plan, tmp_path, board).losses == uninterrupted.losses
    assert board.training().attempt == 2


def test_sigterm_in_the_last_step_of_an_epoch_does_not_lose_its_evaluation(
    tiny_model: Path, tmp_path: Path, uninterrupted: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_in(tiny_model, tmp_path)
    with monkeypatch.context() as patch:
        interrupt_at(patch, STEPS // 3)
        with pytest.raises(Preempted):
            train(plan, ProgressBoard())
    assert finish(plan, tmp_path).eval_losses == uninterrupted.eval_losses


def test_a_broken_checkpoint_is_passed_over(
    tiny_model: Path,
    tmp_path: Path,
    uninterrupted: Told,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = plan_in(tiny_model, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "SECONDS_PER_MINUTE", 0)
        interrupt_at(patch, 7)
        with pytest.raises(Preempted):
            train(plan, ProgressBoard())
    newest = next((tmp_path / "out" / "checkpoints").glob("*/step-7"))
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        told = finish(plan, tmp_path)
    assert "step-7 is passed over: weights.safetensors is not what was written" in caplog.text
    assert told.lineage.run.resumed_from_step == 6
    assert told.losses == uninterrupted.losses


def test_half_the_micro_batch_goes_on_with_the_same_data(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after running out of memory: the same batches in smaller pieces."""
    monkeypatch.setattr(machine, "has_bfloat16_products", lambda: False)
    quiet = {"lora": {"dropout": 0}}
    smaller = {"memory": {**MEMORY, "microBatchSize": 2, "gradientAccumulation": 4}}
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        folder.mkdir()
    whole = finish(plan_in(tiny_model, tmp_path / "whole", **quiet), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(Preempted):
            train(plan_in(tiny_model, tmp_path / "cut", **quiet), ProgressBoard())
    cut = finish(plan_in(tiny_model, tmp_path / "cut", **quiet, **smaller), tmp_path / "cut")
    assert cut.lineage.run.resumed_from_step == 5
    assert cut.losses == pytest.approx(whole.losses, rel=2e-4)


def test_checkpoints_are_gone_once_the_result_is_published(uninterrupted: Told) -> None:
    assert list((uninterrupted.folder.parent / "checkpoints").iterdir()) == []
