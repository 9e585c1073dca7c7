"""How many tokens a second a training will do on a GPU. Pure.

The time of a step is the sum of four: matrix products at a share of the card's peak, attention at
a lower one, everything between them at the speed of memory, and the start of each layer's kernels.
The shares were fitted to prototypes on one H100 80GB with Llama shapes of 8B and 70B; the trainer's
own speeds there (tests/unit/operator/measured_peaks.py) they meet within 5%.

On other cards and models this is an estimate: expect a third more or less. Cards that lower their
clock under load (L4, A10) are slower, documents shorter than the sequence make attention cheaper,
and the card itself is guessed from its memory where its name is not known.
"""

from __future__ import annotations

from tunesmith.api.memory import Optimizer
from tunesmith.api.method import Method
from tunesmith.memory_planner.activations import FLOAT32, checkpointed_layers
from tunesmith.memory_planner.gpus import Gpu
from tunesmith.memory_planner.memory import Setup, trained_parameters
from tunesmith.memory_planner.model_shape import ModelShape

#: Of the datasheet's peak, in products of the sizes of a model: 705 of 989.
PRODUCT_SHARE = 0.71
#: Flash attention forward and backward at 2048 tokens: 189 of 989.
ATTENTION_SHARE = 0.19
#: Of the datasheet's memory speed, in a copy: 3.0 of 3.35 TB/s.
MEMORY_SHARE = 0.9
#: How often what a layer keeps passes through memory between the products of one step: fitted.
PASSES = 8.3
#: Beside the bytes that DoRA keeps more, for the lengths of the rows: with it DoRA has the 0.95 of
#: LoRA's speed that an H100 showed (14,139 of 14,911 tokens a second at 5x2048).
DORA_SLOWDOWN = 1 / 0.975
#: To start the kernels of a layer for one micro-batch, forward and backward, in seconds: fitted.
LAYER_START = 0.4e-3


def tokens_per_second(shape: ModelShape, setup: Setup, accumulation: int, gpu: Gpu) -> float:
    """Of all GPUs together; nothing is taken off for their communication."""
    step = (
        accumulation * micro_batch_seconds(shape, setup, gpu)
        + (accumulation - 1) * addition_seconds(shape, setup, gpu)
        + update_seconds(shape, setup, gpu)
    )
    return setup.processes * accumulation * setup.tokens / step


def micro_batch_seconds(shape: ModelShape, setup: Setup, gpu: Gpu) -> float:
    """One forward and one backward pass."""
    peak = gpu.teraflops * 1e12
    products = product_flops(shape, setup) / (PRODUCT_SHARE * peak)
    attention = attention_flops(shape, setup) / (ATTENTION_SHARE * peak)
    moved = setup.tokens * moved_bytes(shape, setup) + dequantised_bytes(shape, setup)
    seconds = (
        setup.tokens * (products + attention)
        + moved / memory_speed(gpu)
        + shape.layers * LAYER_START
    )
    return seconds * (DORA_SLOWDOWN if setup.method.is_dora else 1)


def memory_speed(gpu: Gpu) -> float:
    """Bytes a second."""
    return MEMORY_SHARE * gpu.gigabytes_per_second * 1e9


def recomputed_share(shape: ModelShape, setup: Setup) -> float:
    return checkpointed_layers(shape, setup.checkpointing) / shape.layers


def product_flops(shape: ModelShape, setup: Setup) -> float:
    """Per token: 2 for each weight forward and 2 for the gradient of its input, 2 more where it is
    trained, and 2 more where its layer is computed again. The head is computed twice, as its
    logits are not kept."""
    weights = shape.multiplied_parameters
    full = setup.method is Method.FULL
    adapter = 0 if full else trained_parameters(shape, setup)
    again = recomputed_share(shape, setup) * (shape.linear_parameters + adapter)
    once = (6 if full else 4) * weights + 6 * adapter
    return once + 2 * again + 2 * shape.embedding_parameters


def attention_flops(shape: ModelShape, setup: Setup) -> float:
    """Per token, causal, over the whole sequence: half of 4 * length * width forward, twice that
    backward."""
    forward = 2 * setup.length * shape.attention_width * shape.layers
    return forward * (3 + recomputed_share(shape, setup))


def moved_bytes(shape: ModelShape, setup: Setup) -> float:
    """Per token, between the products; a pass computed again is a third more."""
    kept = shape.layers * setup.kept(shape).of_layer(shape)
    return PASSES * kept * (1 + recomputed_share(shape, setup) / 3)


def dequantised_bytes(shape: ModelShape, setup: Setup) -> float:
    """Per micro-batch: each weight is written and read in 16 bits for each of its uses."""
    if not setup.method.is_quantised:
        return 0
    uses = 2 + recomputed_share(shape, setup)
    return uses * shape.linear_parameters * (0.5 + 2 * setup.bytes_per_value)


def addition_seconds(shape: ModelShape, setup: Setup, gpu: Gpu) -> float:
    """A micro-batch's gradients are added to those there are: two are read, and one is written."""
    width = setup.bytes_per_value if setup.method is Method.FULL else FLOAT32
    return 3 * width * trained_parameters(shape, setup) / setup.shards / memory_speed(gpu)


def update_seconds(shape: ModelShape, setup: Setup, gpu: Gpu) -> float:
    """The optimiser reads and writes all that belongs to a trained weight once: of an adapter four
    values in 32 bits."""
    wide = setup.optimizer is Optimizer.ADAMW and setup.method is not Method.FULL
    per_parameter = 16 if wide else 8
    moved = 2 * per_parameter * trained_parameters(shape, setup) / setup.shards
    return moved / memory_speed(gpu)
