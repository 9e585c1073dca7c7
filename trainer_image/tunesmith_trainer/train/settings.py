"""The plan's hyperparameters in TRL's terms, and the method that the plan does not spell out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.training import Training

from tunesmith_trainer.data.chat import Example

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import SFTConfig


def settings(training: Training, checkpoints: Path, *, on_gpu: bool, bf16: bool) -> SFTConfig:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
        # Best-fit packing keeps each example whole and apart from its neighbours: its positions
        # begin at 0 again, from which transformers builds a block-diagonal mask.
        packing=training.packing,
        packing_strategy="bfd",
        max_length=training.max_length,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        # Below 1 it is a share of the steps.
        warmup_steps=training.warmup_ratio,
        # One evaluation and one checkpoint per epoch; the best one is what is published.
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        seed=training.seed,
        data_seed=training.seed,
        # The adapter's weights stay float32; they are computed in the base model's type.
        bf16=bf16,
        use_cpu=not on_gpu,
        # Recomputing activations saves GPU memory; a CPU has enough of it, and no time to waste.
        gradient_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        # A loss that is not a number must be seen, not averaged away.
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def as_dataset(examples: list[Example]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [example.tokens for example in examples],
            "labels": [example.labels for example in examples],
        }
    )
