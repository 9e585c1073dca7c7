"""transformers' trainer around the engine: rows in, a loss over the whole optimiser step.

Not TRL's: its SFTTrainer replaces the model's head by its own, prepares the dataset again, and asks
the GPU for three numbers after every forward pass, which makes the host wait for it each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from tunesmith_trainer.train.engine.packing import Collator, PaddedCollator, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel, TrainerCallback, TrainingArguments


class EngineTrainer(Trainer):  # type: ignore[misc]
    """Trains a model of ``engine.build``; its checkpoints are transformers' own."""

    def __init__(
        self,
        model: PeftModel | PreTrainedModel,
        args: TrainingArguments,
        collator: Collator | PaddedCollator,
        train_rows: Rows,
        held_out_rows: Rows | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_rows,
            eval_dataset=held_out_rows,
            callbacks=list(callbacks),
        )
        # The loss is divided by the whole step's labelled tokens already, so transformers must not
        # divide it by the number of micro-batches.
        self.model_accepts_loss_kwargs = True
        self.tokens_trained = 0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The micro-batches of one step and their labelled tokens, over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        counts = [
            sum(batch["targets"].numel() for batch in batches),
            sum(batch["real_tokens"] for batch in batches),
        ]
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(torch.tensor(counts, device=device), "sum").tolist()
        self.tokens_trained += counts[1]
        return batches, counts[0]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> torch.Tensor:
        """This micro-batch's share of the step's loss.

        Gradients of several processes are averaged, hence the factor: their sum is meant.
        """
        labelled = num_items_in_batch or inputs["targets"].numel()
        return summed_loss(model, inputs) * (self.args.world_size / max(1, labelled))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: transformers' formula takes a frozen weight for a trained one."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["num_tokens"] = self.tokens_trained
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean over all labelled tokens; transformers' is one over batches of any size."""
        model = self.model.eval()
        totals = torch.zeros(2, device=self.args.device)
        with torch.no_grad():
            for inputs in dataloader:
                inputs = self._prepare_inputs(inputs)
                totals[0] += summed_loss(model, inputs)
                totals[1] += inputs["targets"].numel()
                self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        total, labelled = self.accelerator.reduce(totals, "sum").tolist()
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics={f"{metric_key_prefix}_loss": total / max(1.0, labelled)},
            num_samples=len(dataloader.dataset),
        )


def summed_loss(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    passed = {name: value for name, value in inputs.items() if name != "real_tokens"}
    return model(**passed)
