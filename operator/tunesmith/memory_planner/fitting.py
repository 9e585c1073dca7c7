"""Which setups fit into the memory there is, best first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from tunesmith.api.memory import ActivationCheckpointing, Optimizer, Parallelism
from tunesmith.api.method import Method
from tunesmith.memory_planner.gpus import GIGABYTE
from tunesmith.memory_planner.memory import Setup, predict
from tunesmith.memory_planner.request import PlanRequest, divisors

#: Above so many tokens per micro-batch an H100 gets no faster (12 to 14 thousand, Llama-3.1-8B),
#: and what is left of the memory is safety.
SATURATION_TOKENS = 14_336
#: On a CPU it is so much earlier, and where nobody knows the memory it is a caution.
CAUTIOUS_TOKENS = 4_096

CHECKPOINTING = (
    ActivationCheckpointing.OFF,
    ActivationCheckpointing.PARTIAL,
    ActivationCheckpointing.FULL,
)


EIGHT_BITS = {Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT}

#: The design rule for Auto: QLoRA below 24 GB for a model of 7B. Models that are called 7B or 8B
#: have these parameters; larger and smaller ones need in proportion.
LORA_BYTES = 24 * GIGABYTE
SMALLEST_7B, LARGEST_7B = 6.5e9, 8.3e9


def best_setup(request: PlanRequest) -> Setup | None:
    """The setup to train with; None where nothing that the request allows fits."""
    for method, parallelism in ways(request):
        setup = fitting(request, method, parallelism)
        if setup is not None:
            return setup
    return None


def ways(request: PlanRequest) -> list[tuple[Method, Parallelism | None]]:
    """Methods and parallelisms to try, best first."""
    if request.method is not Method.AUTO:
        return [(request.method, each) for each in parallelisms(request, request.method)]
    lora = [
        (Method.LORA, each)
        for each in parallelisms(request, Method.LORA)
        if is_enough_for_lora(request, each)
    ]
    return lora + [(Method.QLORA, each) for each in parallelisms(request, Method.QLORA)]


def parallelisms(request: PlanRequest, method: Method) -> list[Parallelism | None]:
    """A whole model on each GPU needs the least communication. FSDP2 leaves packed 4-bit weights
    whole on each, so that it is chosen for the other methods only."""
    if request.hardware.processes == 1:
        return [None]
    asked = request.training.parallelism
    if asked is not Parallelism.AUTO:
        return [asked]
    if method.is_quantised or request.training.optimizer in EIGHT_BITS:
        return [Parallelism.DDP]
    return [Parallelism.DDP, Parallelism.FSDP2]


def is_enough_for_lora(request: PlanRequest, parallelism: Parallelism | None) -> bool:
    """Whether Auto may be LoRA, by the design rule, provided that it fits."""
    if not request.hardware.gpus or request.memory_bytes is None:
        return True
    parameters = request.shape.parameters
    classes = max(parameters / LARGEST_7B, min(1, parameters / SMALLEST_7B))
    shards = request.hardware.processes if parallelism is Parallelism.FSDP2 else 1
    return request.memory_bytes * shards >= LORA_BYTES * classes


def fitting(request: PlanRequest, method: Method, parallelism: Parallelism | None) -> Setup | None:
    """The first setup that fits. The state of a paged optimiser is to fit beside the rest, too;
    only where nothing fits so may it leave the GPU, as that costs time in every step."""
    for may_leave in (False, True):
        for setup in setups(request, method, parallelism):
            if fits(request, setup, may_leave):
                return setup
    return None


def smallest_setup(request: PlanRequest) -> Setup:
    """Of all that the request allows the one that needs least, whether it fits or not."""
    allowed = [setup for way in ways(request) for setup in setups(request, *way)]
    return min(allowed, key=lambda setup: predict(request.shape, setup).peak)


def fits(request: PlanRequest, setup: Setup, may_leave: bool) -> bool:
    usable = request.usable_bytes
    if usable is None:
        return True
    need = predict(request.shape, setup)
    return need.peak + (0 if may_leave else need.paged) <= usable


def optimizer(request: PlanRequest, method: Method, parallelism: Parallelism | None) -> Optimizer:
    """The optimiser to use. The state of an adapter is small, so that Auto is AdamW there.

    For all weights of a model in bfloat16 AdamW would keep its second moment in that type, too,
    whose 8 bits round away updates of a thousandth; blocks of 8 bits with a scale each do not
    (arXiv:2110.02861). Paged, they leave the GPU only when it is full. Cut among GPUs, weights
    are no plain tensors, which bitsandbytes needs.
    """
    asked = request.training.optimizer
    if asked is not Optimizer.AUTO:
        return asked
    paged = method is Method.FULL and request.hardware.gpus
    paged = paged and parallelism is not Parallelism.FSDP2
    return Optimizer.PAGED_ADAMW_8BIT if paged else Optimizer.ADAMW


def setups(
    request: PlanRequest, method: Method, parallelism: Parallelism | None
) -> Iterator[Setup]:
    """Best first: as little checkpointing as possible, then as many sequences as are worth their
    memory."""
    training, lora = request.training, request.lora
    base = Setup(
        method=method,
        rank=lora.rank,
        dropout=lora.dropout,
        target_modules=tuple(lora.target_modules),
        length=training.max_length,
        micro_batch=1,
        checkpointing=ActivationCheckpointing.OFF,
        optimizer=optimizer(request, method, parallelism),
        processes=request.hardware.processes,
        parallelism=parallelism,
        bytes_per_value=request.bytes_per_value,
        compiled=request.hardware.gpus > 0,
    )
    for checkpointing, micro_batch in product(checkpointings(request), micro_batches(request)):
        yield replace(
            base,
            checkpointing=checkpointing,
            micro_batch=micro_batch,
            accumulates=micro_batch < request.sequences,
        )


def checkpointings(request: PlanRequest) -> tuple[ActivationCheckpointing, ...]:
    """Nobody knows the memory of the GPU: as if it were small."""
    asked = request.training.activation_checkpointing
    if asked is not ActivationCheckpointing.AUTO:
        return (asked,)
    if request.hardware.gpus and request.memory_bytes is None:
        return (ActivationCheckpointing.FULL,)
    return CHECKPOINTING


def micro_batches(request: PlanRequest) -> list[int]:
    """Divisors of a process's share of the batch, largest first, that are worth their memory."""
    asked, sequences = request.training.micro_batch_size, request.sequences
    if asked is not None:
        return [asked]
    known = request.hardware.gpus and request.memory_bytes is not None
    worth = (SATURATION_TOKENS if known else CAUTIOUS_TOKENS) // request.training.max_length
    return [size for size in divisors(sequences) if size <= max(1, worth)]
