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
    FLOAT32,
    Kept,
    activation_need,
)
from tunesmith.memory_planner.model_shape import ModelShape

GIB = 1024**3

#: NF4 with double quantisation: 4 bits, a scale of 8 bits for each 64 weights, and a scale of 32
#: bits for each 256 of those scales (arXiv:2305.14314, section 3).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
#: Two moments of one byte, and of each a scale of 32 bits for 256 values (bitsandbytes 0.50.2).
MOMENTS_8BIT, SCALES_8BIT = 2, 2 * FLOAT32 / 256
#: The moments of an embedding stay in 32 bits (transformers 5.23, Trainer.create_optimizer).
MOMENTS_32BIT = 2 * FLOAT32
#: Values of 32 bits for each row of a weight that DoRA adapts: the frozen row's squared length, and
#: the adapted one's length.
DORA_ROW = 2 * FLOAT32

#: CUDA's context, its libraries and their kernels, outside of torch's allocator.
CONTEXT_BYTES = GIB
#: Workspaces of cuBLAS on Hopper, inside of torch's allocator: one for each of the threads that
#: multiply, of the forward and of the backward pass.
CUBLAS_BYTES = 2 * 32 * 1024**2
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
    #: Whether each layer is compiled, as the trainer does on GPUs.
    compiled: bool = True

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
            compiled=self.compiled,
        )


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on each GPU at the peak."""

    weights: int
    #: Of all that is trained.
    gradients: int
    #: Adapter, optimiser state, and what DDP and DoRA hold beside them.
    training_state: int
    #: What all layers keep for the backward pass.
    activations: int
    #: Beside it at the turn from forward to backward pass: the loss, or the last layers' gradients.
    turn: int
    #: Beside all gradients at the end of the backward pass; less where one of them is yet to come.
    end: int
    #: cuBLAS, and what FSDP2 gathers.
    workspace: int
    #: Paged optimiser state: wants to be on the GPU, too, but need not.
    paged: int
    #: Whether gradients are there at the turn, from the step's second micro-batch on. With the
    #: first they come into being layer by layer, while activations go.
    accumulates: bool = False

    @property
    def peak(self) -> int:
        turning = self.activations + self.turn + (self.gradients if self.accumulates else 0)
        return (
            self.weights
            + self.training_state
            + self.workspace
            + max(turning, self.gradients + self.end)
        )


def predict(shape: ModelShape, setup: Setup) -> MemoryNeed:
    """Raises ValueError where target_modules name nothing that the model has."""
    full = setup.method is Method.FULL
    width = setup.bytes_per_value
    gradients = trained_parameters(shape, setup) * (width if full else FLOAT32)
    state, paged = _optimizer_state(shape, setup)
    if setup.parallelism is Parallelism.DDP:
        # DistributedDataParallel copies gradients into buckets of the same size.
        state += gradients
    passing = activation_need(shape, setup.kept(shape), setup.tokens, setup.checkpointing)
    # The loss gives the head's gradient, on its own before it joins the others; the last of all is
    # the embedding's, which may be the same one.
    ends = shape.embedding_parameters * width if full else 0
    tied = ends if shape.tied_embeddings else 0
    hidden = setup.tokens * shape.hidden * width
    layers = _layer_workspace(shape, setup)
    return MemoryNeed(
        weights=round(weight_bytes(shape, setup)),
        gradients=round(gradients / setup.shards),
        training_state=round(state / setup.shards),
        activations=round(passing.kept),
        turn=round(ends + max(passing.loss, passing.last_layers + layers)),
        end=round(tied + max(hidden, passing.first_layer + layers - ends / setup.shards)),
        workspace=round(_workspace(shape, setup)),
        paged=round(paged / setup.shards),
        accumulates=setup.accumulates,
    )


def weight_bytes(shape: ModelShape, setup: Setup) -> float:
    """Of the frozen model, or of the one that is trained, on one GPU.

    QLoRA leaves embedding, head and norms in bfloat16. Only these are cut by FSDP2: each process
    holds the packed 4-bit weights whole.
    """
    if setup.method.is_quantised:
        others = shape.parameters - shape.linear_parameters
        return shape.linear_parameters * NF4_BYTES + others * setup.bytes_per_value / setup.shards
    return shape.parameters * setup.bytes_per_value / setup.shards


def trained_parameters(shape: ModelShape, setup: Setup) -> int:
    """All, or those of the adapter; DoRA has one more for each row of a weight."""
    if setup.method is Method.FULL:
        return shape.parameters
    targets = shape.targets(setup.target_modules)
    weights = shape.layers * sum(linear.adapter_weights(setup.rank) for linear in targets)
    return weights + (adapted_rows(shape, setup) if setup.method.is_dora else 0)


def adapted_rows(shape: ModelShape, setup: Setup) -> int:
    """Rows of all weights that have an adapter."""
    return shape.layers * sum(linear.outputs for linear in shape.targets(setup.target_modules))


def _optimizer_state(shape: ModelShape, setup: Setup) -> tuple[float, float]:
    """Adapter and moments: bytes on the GPU, bytes that are paged.

    Adapters and their moments have 32 bits; a full fine-tuning trains the weights as they are,
    and torch's AdamW has moments in the type of what it trains. With 8 bits the scales stay on
    the GPU when the moments are paged, and so do tensors below 100,000 values, as are those of an
    adapter (bitsandbytes 0.50.2, Optimizer2State.get_state_buffer).
    """
    trained = trained_parameters(shape, setup)
    full = setup.method is Method.FULL
    adapter = 0 if full else trained * FLOAT32
    if setup.method.is_dora:
        adapter += adapted_rows(shape, setup) * DORA_ROW
    if setup.optimizer is Optimizer.ADAMW:
        return adapter + 2 * trained * (setup.bytes_per_value if full else FLOAT32), 0
    wide = shape.embedding_parameters if full else 0
    moments = (trained - wide) * MOMENTS_8BIT + wide * MOMENTS_32BIT
    scales = (trained - wide) * SCALES_8BIT
    if full and setup.optimizer is Optimizer.PAGED_ADAMW_8BIT:
        return scales, moments
    return adapter + moments + scales, 0


def _layer_workspace(shape: ModelShape, setup: Setup) -> int:
    """In a layer's backward pass: the weight that is dequantised for its use, or the gradients of
    all its weights, which compiled code hands over together (some of them later than here)."""
    if setup.method.is_quantised:
        return max(linear.weights for linear in shape.linears) * setup.bytes_per_value
    if setup.method is Method.FULL:
        return shape.layer_linear_weights * setup.bytes_per_value
    return 0


def _workspace(shape: ModelShape, setup: Setup) -> float:
    """cuBLAS, and what FSDP2 gathers.

    FSDP2 gathers a layer while the one before computes, and holds embedding and head, its root
    group, from the forward to the backward pass (torch 2.11, fully_shard). A full fine-tuning has
    gradients of the same size, which are averaged in 32 bits.
    """
    if setup.shards == 1:
        return CUBLAS_BYTES
    width = setup.bytes_per_value
    cut = 0 if setup.method.is_quantised else shape.layer_linear_weights
    ends = (shape.embedding_parameters + shape.head_parameters) * width
    if setup.method is Method.FULL:
        return CUBLAS_BYTES + cut * (3 * width + FLOAT32) + 2 * ends
    return CUBLAS_BYTES + cut * 2 * width + ends


def usable_bytes(memory: int, gpus: int) -> int:
    """What tensors may take of a GPU's memory, or of a pod's where there is no GPU."""
    if gpus == 0:
        return max(0, round(memory * (1 - RESERVED_SHARE)) - PROCESS_BYTES)
    communication = COMMUNICATION_BYTES if gpus > 1 else 0
    return max(0, round(memory * (1 - RESERVED_SHARE)) - CONTEXT_BYTES - communication)
