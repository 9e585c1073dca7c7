"""A trainer that outlives its process: transformers' loop with our order of data and checkpoints.

Its steps are the engine's. It replaces what transformers does about data order, evaluation, saving
and loading, which depends there on how the work is cut:

- Which sequences a step trains on depends on seed and epoch only (order.py).
- The loss on the dev slice is one mean over its labelled tokens, whatever the micro-batch.
- Checkpoints are written whole and by parameter names (checkpoints.py, training_state.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerControl, TrainerState
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.processes import is_first, rank, wait_for_all, world_size
from tunesmith_trainer.train import sequences, training_state
from tunesmith_trainer.train.checkpoints import Checkpoints
from tunesmith_trainer.train.engine_trainer import EngineTrainer, summed_loss
from tunesmith_trainer.train.order import FILLER, StepOrder
from tunesmith_trainer.train.sharding import is_sharded

log = logging.getLogger(__name__)

#: transformers looks for it when it resumes.
STATE_FILE = "trainer_state.json"


class WithFiller(Dataset[Any]):  # type: ignore[misc]
    """A dataset in which FILLER stands for a sequence without labels."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return sequences.FILLER_ROW if index == FILLER else self._rows[index]


class EpochLoader(DataLoader[Any]):  # type: ignore[misc]
    """Tells its order which epoch it is, as transformers does with loaders that can be told."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


def as_it_is(model: Any, **_: Any) -> Any:
    return model


class LastingTrainer(EngineTrainer):
    """Set ``checkpoints`` before training; without it nothing is saved."""

    checkpoints: Checkpoints | None = None

    def create_optimizer(self, *arguments: Any, **named: Any) -> Any:
        """The step before accelerate wraps the model, which one that is sharded already needs not.
        transformers knows that from 5.19 on only; before, accelerate would refuse it on GPUs."""
        if is_sharded(self.model):
            self.accelerator.prepare_model = as_it_is
        return super().create_optimizer(*arguments, **named)

    # --- which data -------------------------------------------------------------------------------

    @property
    def order(self) -> StepOrder:
        """Of the training sequences, for this process."""
        if not hasattr(self, "_order"):
            size, accumulated = self.args.per_device_train_batch_size, self.accumulation
            self._order = StepOrder(
                lengths=[sequences.length(row) for row in self.train_dataset],
                batch_size=size * accumulated * world_size(),
                micro_batch_size=size,
                seed=self.args.seed,
                processes=world_size(),
                rank=rank(),
            )
        return self._order

    @property
    def accumulation(self) -> int:
        return int(self.args.gradient_accumulation_steps)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Not prepared by accelerate, which would share the micro-batches out a second time."""
        return EpochLoader(
            WithFiller(self.train_dataset),
            batch_sampler=self.order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Raises TrainerError if a whole step has nothing to learn: its loss would be 0 or NaN."""
        batches, labels = super().get_batch_samples(epoch_iterator, num_batches, device)
        if labels == 0:
            raise TrainerError(
                Reason.STEP_WITHOUT_ANSWERS,
                f"step {self.state.global_step + 1} has no token to learn from: every example in "
                "it is all question and no answer. Look at the assistant's messages in the dataset",
            )
        return batches, labels

    def training_step(self, model: Any, *arguments: Any, **named: Any) -> torch.Tensor:
        if is_sharded(model):
            # Gradients are exchanged once per step. They lie whole until then, which adapters can
            # afford and a whole model cannot.
            once = sum(each.numel() for _, each in training_state.learning_parameters(model))
            is_small = once * world_size() < SMALL
            model.set_requires_gradient_sync(self.accelerator.sync_gradients or not is_small)
        return super().training_step(model, *arguments, **named)

    # --- loss on the dev slice --------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {"eval_loss": self.mean_dev_loss()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def mean_dev_loss(self) -> float:
        """Over the labelled tokens of all its rows, on all processes. Collective."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        with torch.no_grad():
            for batch in self._eval_batches():
                sums[1] += batch["targets"].numel()
                sums[0] += summed_loss(self.model, self._prepare_inputs(batch)).double()
        self.model.train()
        if world_size() > 1:
            distributed.all_reduce(sums)
        total, labelled = sums.tolist()
        return float(total / max(1.0, labelled))

    def _eval_batches(self) -> Iterator[Any]:
        """This process's share. Shards wait for each other, so all get the same number."""
        size = self.args.per_device_eval_batch_size
        rows = WithFiller(self.eval_dataset)
        order = StepOrder([1] * len(rows), size * world_size(), size, 0, world_size(), rank())
        for indices in order.in_file_order():
            yield self.data_collator([rows[index] for index in indices])

    # --- checkpoints ------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.checkpoints is None:
            return
        step = self.state.global_step
        schedule = self.lr_scheduler.state_dict()
        gathering = (self.bare_model(), self.optimizer.optimizer, schedule)
        if is_first():
            cut = (self.args.per_device_train_batch_size, world_size())
            self.checkpoints.save(step, lambda folder: self._write(folder, *gathering), cut)
            self.checkpoints.prune(self.best_step())
            log.info("checkpoint at step %d", step)
        else:
            training_state.write_state(None, *gathering)
        wait_for_all()

    def _write(self, folder: Path, model: Any, optimizer: Any, schedule: dict[str, Any]) -> None:
        training_state.write_state(folder, model, optimizer, schedule)
        self.state.save_to_json(str(folder / STATE_FILE))

    def bare_model(self) -> Any:
        """Without DDP around it."""
        return self.accelerator.unwrap_model(self.model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        training_state.read_weights(Path(resume_from_checkpoint), self.bare_model())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        training_state.read_optimizer(folder, self.bare_model(), self.optimizer.optimizer)
        self.lr_scheduler.load_state_dict(training_state.read_schedule(folder))
        # A schedule sets the rate when it steps, and the next step comes before that.
        for group, rate in zip(
            self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True
        ):
            group["lr"] = rate

    def _load_scaler(self, checkpoint: str | None) -> None:
        """bfloat16 and float32 need none."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            training_state.read_random_state(Path(checkpoint), self.args.seed)

    # --- the best ---------------------------------------------------------------------------------

    def best_step(self) -> int | None:
        """The step whose loss on the dev slice was lowest; None before the first evaluation."""
        return best_step(self.state)

    def take_best(self) -> int:
        """Go back to the weights of the best step, if that is not the last one. Collective."""
        step, best = int(self.state.global_step), self.best_step()
        if best is None or best == step or self.checkpoints is None:
            return step
        found = self.checkpoints.at(best)
        if found is None:
            log.warning("the best checkpoint, of step %d, is gone: the last weights are kept", best)
            return step
        training_state.read_weights(found.folder, self.bare_model())
        log.info("the best step was %d of %d", best, step)
        return best


#: Gradients of so many elements may lie whole on each GPU between two exchanges.
SMALL = 2**31


def evaluations(state: TrainerState) -> Sequence[tuple[int, float]]:
    """(step, loss on the dev slice) of each evaluation so far."""
    return [
        (int(entry["step"]), float(entry["eval_loss"]))
        for entry in state.log_history
        if "eval_loss" in entry
    ]


def best_step(state: TrainerState) -> int | None:
    found = evaluations(state)
    return min(found, key=lambda each: (each[1], each[0]))[0] if found else None


def is_exhausted(state: TrainerState, patience: int | None) -> bool:
    """Whether the last ``patience`` evaluations were no better than the best before them."""
    losses = [loss for _, loss in evaluations(state)]
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
