"""The most memory that each GPU of a training will need, by what it is needed for. Pure.

What is predicted is torch.cuda.max_memory_allocated() of one process. Two things are outside of it
and have names of their own: the state of a paged optimiser (managed memory, which moves to the
host when the GPU is full), and what a card must keep free for everything but torch's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.memory import ActivationCheckpointing, Optimizer, Parallelism
from tunesmith.api.method import Method
from tunesmith.memory_planner.activations import (
    COMPILED,
    FLOAT32,
    Engine,
    Kept,
    activation_need,
)
from tunesmith.memory_planner.model_shape import ModelShape

GIB = 1024**3

#: NF4 with double quantisation: 4 bits, a scale of 8 bits for each 64 weights, and a scale of 32
#: bits for each 256 of those scales (arXiv:2305.14314, section 3).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
#: Two moments of one byte, and a scale of 32 bits for each 256 values (bitsandbytes 0.50.2).
MOMENTS_8BIT = 2 * (1 + FLOAT32 / 256)
MOMENTS_32BIT = 2 * FLOAT32

#: CUDA's context, its libraries and their kernels, outside of torch's allocator.
CONTEXT_BYTES = GIB
#: Workspace of cuBLAS on Hopper, inside of torch's allocator.
CUBLAS_BYTES = 32 * 1024**2
#: Buffers of NCCL with more than one GPU.
COMMUNICATION_BYTES = GIB
#: Of the card: what the driver keeps (80 GB H100s offer 79.2 of 80 GiB), gaps between blocks of
#: the allocator, and the error of this prediction.
RESERVED_SHARE = 0.05
#: An interpreter without a GPU: 0.88 GiB after importing torch 2.13, transformers 5.19, peft and
#: datasets.
PROCESS_BYTES = GIB


@dataclass(frozen=True)
class Setup:
    """What decides how much memory a training needs, Auto being resolved."""

    method: Method
    rank: int
    dropout: float
    target_modules: tuple[str, ...]
    length: int
    micro_batch: int
    checkpointing: ActivationCheckpointing
    optimizer: Optimizer
    #: Whether gradients are kept over several micro-batches.
    accumulates: bool = False
    processes: int = 1
    parallelism: Parallelism | None = None
    #: Of a weight and an activation: 2 (bfloat16), or 4 on CPUs without products in bfloat16.
    bytes_per_value: int = 2
    engine: Engine = COMPILED

    @property
    def tokens(self) -> int:
        return self.micro_batch * self.length

    @property
    def shards(self) -> int:
        """Into how many parts weights and optimiser state are cut."""
        return self.processes if self.parallelism is Parallelism.FSDP2 else 1

    def kept(self, shape: ModelShape) -> Kept:
        """Raises ValueError where target_modules name nothing that the model has."""
        full = self.method is Method.FULL
        targets = () if full else shape.targets(self.target_modules)
        return Kept(
            method=self.method,
            rank=self.rank,
            dropout=self.dropout,
            targets=targets,
            bytes_per_value=self.bytes_per_value,
            engine=self.engine,
        )


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on each GPU at the peak."""

    weights: int
    gradients: int
    #: Adapter, copies of the trained weights, and optimiser state.
    training_state: int
    #: What all layers keep for the backward pass.
    activations: int
    #: At the turn from forward to backward pass: the loss, or the gradients of the last layer.
    turn: int
    #: A layer's weights gathered or dequantised for their use.
    workspace: int
    #: Paged optimiser state: wants to be on the GPU, too, but need not.
    paged: int
    #: Whether gradients come into being layer by layer while activations go: a full fine-tuning
    #: with one micro-batch per step. Elsewhere they are there from the second micro-batch on.
    gradients_grow: bool = False

    @property
    def peak(self) -> int:
        passing = self.activations + self.turn
        changing = max(passing, self.gradients) if self.gradients_grow else passing + self.gradients
        return self.weights + self.training_state + changing + self.workspace


def predict(shape: ModelShape, setup: Setup) -> MemoryNeed:
    """Raises ValueError where target_modules name nothing that the model has."""
    full = setup.method is Method.FULL
    kept = setup.kept(shape)
    trained = trained_parameters(shape, setup)
    gradients = trained * (setup.bytes_per_value if full else FLOAT32)
    state, paged = _optimizer_state(trained, setup)
    if not full:
        # The copies that are computed with; the masters are part of the state.
        state += trained * setup.bytes_per_value
    if setup.parallelism is Parallelism.DDP:
        # DistributedDataParallel copies gradients into buckets of the same size.
        state += gradients
    passing = activation_need(shape, kept, setup.tokens, setup.checkpointing)
    # The head's gradient is summed on its own before it joins the others.
    head = shape.embedding_parameters * setup.bytes_per_value if full else 0
    return MemoryNeed(
        weights=round(weight_bytes(shape, setup) / setup.shards),
        gradients=round(gradients / setup.shards),
        training_state=round(state / setup.shards),
        activations=round(passing.kept),
        turn=round(max(passing.loss + head, passing.layer)),
        workspace=round(_workspace(shape, setup)),
        paged=round(paged / setup.shards),
        gradients_grow=full and not setup.accumulates,
    )


def weight_bytes(shape: ModelShape, setup: Setup) -> float:
    """Of the whole model. QLoRA leaves embedding, head and norms in bfloat16."""
    if setup.method.is_quantised:
        others = shape.parameters - shape.linear_parameters
        return shape.linear_parameters * NF4_BYTES + others * setup.bytes_per_value
    return shape.parameters * setup.bytes_per_value


def trained_parameters(shape: ModelShape, setup: Setup) -> int:
    """All, or those of the adapter; DoRA has one more for each row of a weight."""
    if setup.method is Method.FULL:
        return shape.parameters
    targets = shape.targets(setup.target_modules)
    weights = sum(linear.adapter_weights(setup.rank) for linear in targets)
    if setup.method.is_dora:
        weights += sum(linear.outputs for linear in targets)
    return shape.layers * weights


def _optimizer_state(trained: int, setup: Setup) -> tuple[float, float]:
    """Masters and moments: bytes on the GPU, bytes that are paged.

    Adapters have masters in 32 bits always. A full fine-tuning has them with AdamW, which with
    weights and gradients in 16 bits makes 16 bytes for each weight (arXiv:1910.02054, section
    3.1), the 112 GB for 7 billion that full fine-tuning is known for; with 8 bits of state it
    trains the weights as they are.
    """
    full = setup.method is Method.FULL
    has_masters = not full or (setup.optimizer is Optimizer.ADAMW and setup.bytes_per_value < 4)
    masters = trained * FLOAT32 * has_masters
    if setup.optimizer is Optimizer.ADAMW:
        return masters + trained * MOMENTS_32BIT, 0
    moments = trained * MOMENTS_8BIT
    if setup.optimizer is Optimizer.PAGED_ADAMW_8BIT:
        return masters, moments
    return masters + moments, 0


def _workspace(shape: ModelShape, setup: Setup) -> float:
    """cuBLAS, the weight that is dequantised for its use, and what FSDP2 gathers.

    FSDP2 gathers a layer while the one before computes, and holds embedding and head, its root
    group, from the forward to the backward pass (torch 2.11, fully_shard).
    """
    width = setup.bytes_per_value
    needed: float = CUBLAS_BYTES
    if setup.method.is_quantised:
        needed += max(linear.weights for linear in shape.linears) * width
    if setup.shards > 1:
        layer = weight_bytes(shape, setup) / shape.layers
        ends = (shape.embedding_parameters + shape.head_parameters) * width
        gathered = 2 * layer + ends
        needed += gathered * (2 if setup.method is Method.FULL else 1)
    return needed


def usable_bytes(memory: int, gpus: int) -> int:
    """What tensors may take of a GPU's memory, or of a pod's where there is no GPU."""
    if gpus == 0:
        return max(0, round(memory * (1 - RESERVED_SHARE)) - PROCESS_BYTES)
    communication = COMMUNICATION_BYTES if gpus > 1 else 0
    return max(0, round(memory * (1 - RESERVED_SHARE)) - CONTEXT_BYTES - communication)
