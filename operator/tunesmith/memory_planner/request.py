"""What a memory plan is asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.method import Lora, Method
from tunesmith.api.trainer_contract import Hardware
from tunesmith.api.training import Training
from tunesmith.memory_planner.memory import usable_bytes
from tunesmith.memory_planner.model_shape import ModelShape


@dataclass(frozen=True)
class PlanRequest:
    """A model, what is to be done with it, and on what."""

    shape: ModelShape
    method: Method
    lora: Lora
    training: Training
    hardware: Hardware
    #: As torch.cuda.get_device_name gives it; unset where nobody has seen the GPU yet.
    gpu_name: str | None = None
    #: Of a weight: 2, or 4 on CPUs without products in bfloat16.
    bytes_per_value: int = 2

    @property
    def memory_bytes(self) -> int | None:
        """Of one GPU, or of a pod without GPUs; unset where nobody knows."""
        hardware = self.hardware
        return hardware.gpu_memory_bytes if hardware.gpus else hardware.memory_bytes

    @property
    def usable_bytes(self) -> int | None:
        if self.memory_bytes is None:
            return None
        gpus = self.hardware.processes if self.hardware.gpus else 0
        return usable_bytes(self.memory_bytes, gpus)

    @property
    def sequences(self) -> int:
        """Of one process per optimiser step."""
        return sequences_per_process(self.training, self.hardware)


def sequences_per_process(training: Training, hardware: Hardware) -> int:
    return max(1, training.batch_size // hardware.processes)


def require_divisible(training: Training, hardware: Hardware) -> None:
    """Raises ValueError with a sentence for a batch that cannot be divided."""
    batch, processes = training.batch_size, hardware.processes
    sequences = sequences_per_process(training, hardware)
    if batch > processes and batch % processes:
        raise ValueError(
            f"training.batchSize {batch} cannot be divided among {processes} GPUs: use "
            f"{batch - batch % processes} or {batch - batch % processes + processes}"
        )
    asked = training.micro_batch_size
    if asked is not None and sequences % asked:
        raise ValueError(
            f"training.microBatchSize {asked} does not divide the {sequences} sequences "
            f"that each of {processes} GPUs has of training.batchSize {batch}: use one of "
            f"{', '.join(map(str, divisors(sequences)))}, or leave it out"
        )


def divisors(number: int) -> list[int]:
    """Largest first."""
    return [size for size in range(number, 0, -1) if number % size == 0]
