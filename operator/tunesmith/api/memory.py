"""The memory plan: how a training fits into the GPUs it asks for."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.method import Method
from tunesmith.api.schema import ApiModel


class ActivationCheckpointing(StrEnum):
    """What is computed a second time instead of being kept."""

    AUTO = "Auto"
    OFF = "Off"
    PARTIAL = "Partial"
    FULL = "Full"


class Optimizer(StrEnum):
    """Where the optimiser's state lies, and in how many bits."""

    AUTO = "Auto"
    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PAGED_ADAMW_8BIT = "PagedAdamW8bit"


class Parallelism(StrEnum):
    """How several GPUs share the work."""

    AUTO = "Auto"
    DDP = "DDP"
    FSDP2 = "FSDP2"


class MemoryPlan(ApiModel):
    """What training does with the memory it has; made before a GPU is asked for.

    ``batchSize = microBatchSize * gradientAccumulation * gpus``, or one sequence per GPU and step
    where there are more GPUs than sequences.
    """

    method: Method = Field(description="The method that Auto became.")
    micro_batch_size: int = Field(description="Sequences per forward pass and GPU.")
    gradient_accumulation: int = Field(description="Forward passes per optimiser step.")
    activation_checkpointing: ActivationCheckpointing = Field(
        description="Off, Partial (every second layer) or Full."
    )
    optimizer: Optimizer = Field(description="The optimiser that Auto became.")
    parallelism: Parallelism | None = Field(
        default=None, description="DDP or FSDP2; unset with one process."
    )
    processes: int = Field(default=1, description="GPUs in all, or processes on the CPU.")
    predicted_peak_bytes: int | None = Field(
        default=None, description="Most memory that each GPU will need."
    )
    predicted_tokens_per_second: float | None = Field(
        default=None, description="Tokens trained a second, all GPUs together."
    )
    gpu_memory_bytes: int | None = Field(
        default=None, description="Memory of one GPU that this plan is made for."
    )
