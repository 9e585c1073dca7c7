"""How training goes: hyperparameters, and what it does with memory and time."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.memory import ActivationCheckpointing, Optimizer, Parallelism
from tunesmith.api.schema import ApiModel, between, rule, rules


class Backend(StrEnum):
    """Whose code does the training step."""

    TUNESMITH = "Tunesmith"
    UNSLOTH = "Unsloth"


class Training(ApiModel):
    """How the model is trained."""

    epochs: int = Field(
        default=3,
        description="Passes over the training examples.",
        json_schema_extra=between(1, 100, "training.epochs", "1 to 5 is usual"),
    )
    learning_rate: float = Field(
        default=2e-4,
        description="Peak learning rate; it follows a cosine after the warm-up.",
        json_schema_extra=rules(
            rule(
                "double(self) > 0.0 && double(self) <= 0.1",
                "training.learningRate must be above 0 and at most 0.1; 0.0002 suits LoRA",
            )
        ),
    )
    warmup_ratio: float = Field(
        default=0.05,
        description="Share of the steps in which the learning rate rises from 0.",
        json_schema_extra=between(0, 0.5, "training.warmupRatio"),
    )
    max_length: int = Field(
        default=2048,
        description="Longest sequence in tokens; also the length that packing fills.",
        json_schema_extra=between(16, 131072, "training.maxLength"),
    )
    packing: bool = Field(
        default=True,
        description=(
            "Fill each sequence with several short examples, which do not see each other."
        ),
    )
    batch_size: int = Field(
        default=8,
        description="Sequences per optimiser step: micro-batches are accumulated to this number.",
        json_schema_extra=between(1, 4096, "training.batchSize"),
    )
    micro_batch_size: int | None = Field(
        default=None,
        description=(
            "Sequences per forward pass and GPU. Unset: as many as fit. Must divide batchSize."
        ),
        json_schema_extra=between(1, 1024, "training.microBatchSize"),
    )
    activation_checkpointing: ActivationCheckpointing = Field(
        default=ActivationCheckpointing.AUTO,
        description=(
            "Compute activations again in the backward pass instead of keeping them: less memory, "
            "a third slower. Auto: as little as fits; Partial: every second layer."
        ),
    )
    optimizer: Optimizer = Field(
        default=Optimizer.AUTO,
        description=(
            "AdamW with its state in the type of what is trained (32 bits for adapters, 16 for "
            "method Full) or in 8 bits, paged to the host's memory or not. Auto: AdamW for "
            "adapters, PagedAdamW8bit for method Full."
        ),
    )
    parallelism: Parallelism = Field(
        default=Parallelism.AUTO,
        description=(
            "With several GPUs. DDP: each holds the whole model; FSDP2: each holds a part. Auto: "
            "DDP where the model fits."
        ),
    )
    early_stopping_patience: int | None = Field(
        default=None,
        description=(
            "Stop when the loss on examples set aside from training has not fallen for so many "
            "epochs. Unset: train them all. The best epoch is kept either way."
        ),
        json_schema_extra=between(1, 100, "training.earlyStoppingPatience"),
    )
    checkpoint_minutes: int = Field(
        default=10,
        description=(
            "Minutes between two checkpoints; there is one at the end of each epoch, too. An "
            "interrupted attempt goes on from the last one."
        ),
        json_schema_extra=between(1, 1440, "training.checkpointMinutes"),
    )
    seed: int = Field(default=42, description="Seed of everything random in training.")

    cel_rules = (
        rule(
            "!has(self.microBatchSize) || self.batchSize % self.microBatchSize == 0",
            "training.batchSize must be a multiple of training.microBatchSize, for example 8 and 2",
        ),
        rule(
            "self.parallelism != 'FSDP2' || !self.optimizer.endsWith('8bit')",
            "training.parallelism FSDP2 needs optimizer AdamW: optimizers of 8 bits cannot be cut "
            "among GPUs",
        ),
    )


class ReportKind(StrEnum):
    """Where loss curves go besides status and report."""

    TENSORBOARD = "TensorBoard"
    MLFLOW = "MLflow"
    WANDB = "WandB"
