"""What would fit, for a request that does not. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunesmith.api.memory import ActivationCheckpointing, Optimizer, Parallelism
from tunesmith.api.method import Method
from tunesmith.memory_planner.fitting import best_setup, smallest_setup
from tunesmith.memory_planner.gpus import GIGABYTE, KNOWN_GPUS
from tunesmith.memory_planner.memory import GIB, Setup, predict
from tunesmith.memory_planner.request import PlanRequest

#: Methods that need less, nearest first.
SMALLER_METHODS = {
    Method.LORA: (Method.QLORA,),
    Method.DORA: (Method.QDORA,),
    Method.FULL: (Method.LORA, Method.QLORA),
}
#: Below this many tokens a dialogue hardly fits.
SHORTEST_LENGTH = 256
GPU_COUNTS = (2, 4, 8, 16)
MEMORY_SIZES = sorted({gpu.gigabytes for gpu in KNOWN_GPUS})


def sentence_of(request: PlanRequest) -> str:
    """What is missing, and the nearest changes with which there is a plan."""
    setup = smallest_setup(request)
    missing = (
        f"method {setup.method} needs {gibibytes(predict(request.shape, setup).peak)} with "
        f"micro-batches of {setup.micro_batch} x {setup.length} tokens, and "
        f"{gibibytes(request.usable_bytes or 0)} of the {gibibytes(request.memory_bytes or 0)} of "
        f"{'one GPU' if request.hardware.gpus else 'the pod'} can be used"
    )
    changes = list(fitting_changes(request))
    if not changes:
        return f"{missing}; no change of one setting makes it fit: choose a smaller model"
    return f"{missing}; what would fit: {listed(changes)}"


def fitting_changes(request: PlanRequest) -> Iterator[str]:
    """Each a change and what is then needed; at most one of each kind."""
    for candidates in (
        fewer_wishes(request),
        smaller_optimizers(request),
        smaller_methods(request),
        shorter_lengths(request),
        larger_memories(request),
        more_gpus(request),
    ):
        for change, changed in candidates:
            setup = best_setup(changed)
            if setup is not None:
                yield f"{change} ({need_of(changed, setup)})"
                break


def fewer_wishes(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    """Without what the user set and the planner would choose."""
    free: dict[str, Any] = {
        "micro_batch_size": None,
        "activation_checkpointing": ActivationCheckpointing.AUTO,
        "optimizer": Optimizer.AUTO,
    }
    if any(getattr(request.training, name) != value for name, value in free.items()):
        training = request.training.model_copy(update=free)
        yield (
            "training without microBatchSize, activationCheckpointing and optimizer",
            replace(request, training=training),
        )


def smaller_methods(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    for method in SMALLER_METHODS.get(request.method, ()):
        yield f"method: {method}", replace(freed(request), method=method)


def smaller_optimizers(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    """Auto tries these for full fine-tunings only."""
    if request.method is not Method.FULL and request.training.optimizer is Optimizer.AUTO:
        for optimizer in (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT):
            training = request.training.model_copy(update={"optimizer": optimizer})
            yield f"training.optimizer {optimizer}", replace(request, training=training)


def shorter_lengths(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    length = request.training.max_length // 2
    while length >= SHORTEST_LENGTH:
        training = request.training.model_copy(update={"max_length": length})
        yield f"training.maxLength {length}", replace(request, training=training)
        length //= 2


def larger_memories(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    for gigabytes in MEMORY_SIZES:
        memory = gigabytes * GIGABYTE
        if request.hardware.gpus and memory > (request.memory_bytes or 0):
            hardware = request.hardware.model_copy(update={"gpu_memory_bytes": memory})
            yield f"GPUs with {gigabytes} GB", replace(request, hardware=hardware)


def more_gpus(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    """Of the same kind in one pod, with the model cut among them."""
    if request.method.is_quantised or request.hardware.nodes > 1:
        return
    method = Method.LORA if request.method is Method.AUTO else request.method
    training = request.training.model_copy(update={"parallelism": Parallelism.FSDP2})
    for gpus in GPU_COUNTS:
        if gpus > request.hardware.gpus > 0 and training.batch_size % gpus == 0:
            hardware = request.hardware.model_copy(update={"gpus": gpus})
            changed = replace(request, method=method, training=training, hardware=hardware)
            yield (
                f"method: {method} with resources.gpus {gpus} and training.parallelism FSDP2",
                freed(changed),
            )


def freed(request: PlanRequest) -> PlanRequest:
    """The micro-batch may be another where the rest is."""
    training = request.training.model_copy(update={"micro_batch_size": None})
    return replace(request, training=training)


def need_of(request: PlanRequest, setup: Setup) -> str:
    need = predict(request.shape, setup)
    return f"{gibibytes(need.peak)} with microBatchSize {setup.micro_batch}"


def gibibytes(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def listed(parts: list[str]) -> str:
    """a, b or c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
