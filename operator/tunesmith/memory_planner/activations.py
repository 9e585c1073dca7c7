"""What a forward pass keeps for its backward pass, counted tensor by tensor. Pure.

The tensors are those of this project's training engine, each decoder layer compiled: RMSNorm keeps
its input, attention its queries, keys, values and output, a linear layer with something to train
its input, the gated MLP both halves and their product. Counted so, the slope over tokens is that of
an H100 to the byte (4,509,468 for Llama-3.1-8B; tests/unit/operator/measured_peaks.py), and each
constant below says which of those runs shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.memory import ActivationCheckpointing
from tunesmith.api.method import Method
from tunesmith.memory_planner.model_shape import Linear, ModelShape

FLOAT32 = 4
INT64 = 8

#: Of the logits of one piece, as the trainer's head cuts them.
PIECE_BYTES = 512 * 2**20
#: Tensors as large as a piece while its loss is computed. Compiled: the logits and their gradient.
COMPILED_PIECES = 2
#: Step by step, in 16 bits: the logits, a copy in 32 bits and its logarithms.
EAGER_PIECES = 5
#: Step by step in 32 bits: the logits and their logarithms, which become the gradient.
WIDE_PIECES = 2

#: DoRA multiplies rows of these results. They are kept before that, and after it, too: as attention
#: takes them, or as the next layer does. Of the others one is computed from the other.
KEPT_TWICE = ("q_proj", "k_proj", "v_proj", "qkv_proj", "down_proj")


@dataclass(frozen=True)
class Kept:
    """What decides the bytes that a token keeps."""

    method: Method
    rank: int
    dropout: float
    targets: tuple[Linear, ...]
    bytes_per_value: int
    #: Whether each layer is compiled, as it is on GPUs.
    compiled: bool

    def of_layer(self, shape: ModelShape) -> int:
        """Bytes of one token in one layer without activation checkpointing."""
        values = (
            self._attention_values(shape)
            + self._mlp_values(shape)
            + self._norm_values(shape)
            + self._adapter_values()
        )
        # Attention's sums, and the lengths by which RMSNorms divide.
        numbers = (shape.heads + shape.family.norms) * FLOAT32
        return values * self.bytes_per_value + self._mask_bytes() + numbers

    def of_checkpoint(self, shape: ModelShape) -> int:
        """Bytes of one token in one layer that is computed again: the layer's input."""
        return shape.hidden * self.bytes_per_value

    def of_row(self, shape: ModelShape) -> int:
        """Bytes of one token beside the layers: sine and cosine of its position, the length that
        the last norm keeps, and its number, position and target."""
        return 2 * shape.head_size * self.bytes_per_value + FLOAT32 + 3 * INT64

    def around_loss(self, shape: ModelShape) -> int:
        """Bytes of one token while its loss is computed: the last layer's result in 32 bits, as the
        norm before the head keeps it, the norm's own result, of that the rows that carry a label,
        and their gradient. A norm that is trained keeps the normalised values besides."""
        narrow = 3 + (self.method is Method.FULL)
        return shape.hidden * (FLOAT32 + narrow * self.bytes_per_value)

    def backward_of_kept(self, shape: ModelShape) -> int:
        """Temporaries of one token, at most, in the backward pass of a layer that is kept.

        The gradients of its result, of the MLP's product and of both its halves; DoRA has the
        halves' before and after their rows are multiplied, the product's gone.
        """
        return self.bytes_per_value * (
            shape.hidden + (4 if self.method.is_dora else 3) * shape.intermediate
        )

    def backward_of_computed_again(self, shape: ModelShape) -> int:
        """Bytes of one token, without the layer's input, in the backward pass that computes a layer
        again. Each tensor goes as soon as it has been used.

        All is there at the MLP's last product: what a layer keeps, and the gradients of its
        result and of that product (8x2048 Full of the 8B: 20.5 times the hidden state, 20.6 seen;
        1B: 22.5 and 22.5). With dropout also what it left of the product, and the gradient of that.
        DoRA's moment is a step later: both halves, before and after their rows are multiplied,
        and the gradients of all four (37.0 and 37.2).
        """
        wide = 1 + 2 * (self.dropout > 0 and self._trains("down_proj"))
        if self.method.is_dora:
            wide = 5
        return self.of_layer(shape) + wide * shape.intermediate * self.bytes_per_value

    def _trains(self, *names: str) -> bool:
        """Whether an input of these layers is needed for a gradient of weights."""
        return self.method is Method.FULL or any(linear.name in names for linear in self.targets)

    def _attention_values(self, shape: ModelShape) -> int:
        queries_keys_values = shape.attention_width + 2 * shape.kv_width
        normed = shape.hidden * self._trains("q_proj", "k_proj", "v_proj", "qkv_proj")
        # The output is kept once, for attention itself and for o_proj.
        return normed + queries_keys_values + shape.attention_width

    def _mlp_values(self, shape: ModelShape) -> int:
        normed = shape.hidden * self._trains("gate_proj", "up_proj", "gate_up_proj")
        # The activation of the gate is computed again by the compiler only.
        wide = 2 + self._trains("down_proj") + (not self.compiled)
        return normed + wide * shape.intermediate

    def _norm_values(self, shape: ModelShape) -> int:
        values = shape.family.norms * shape.hidden
        if shape.family.query_key_norms:
            values += shape.attention_width + shape.kv_width
        return values

    def _adapter_values(self) -> int:
        """x A of each adapter, and DoRA's results before their rows are multiplied."""
        values = self.rank * len(self.targets)
        if self.method.is_dora:
            values += sum(
                linear.outputs
                for linear in self.targets
                if linear.name in KEPT_TWICE or not self.compiled
            )
        return values

    def _mask_bytes(self) -> int:
        """Dropout keeps one for each value that it may drop."""
        return sum(linear.inputs for linear in self.targets) if self.dropout > 0 else 0


@dataclass(frozen=True)
class ActivationNeed:
    """Bytes of one micro-batch. Of the last three only one is there at a time."""

    #: What all layers keep.
    kept: float
    #: Beside it, at the turn from forward to backward pass: around the loss.
    loss: float
    #: Beside it, after the turn: the backward pass of the last layers.
    last_layers: float
    #: At the end of the backward pass, when no other layer's are left: the first layer's.
    first_layer: float


def checkpointed_layers(shape: ModelShape, checkpointing: ActivationCheckpointing) -> int:
    """Partial computes every second layer again: 0, 2, 4, ..."""
    if checkpointing is ActivationCheckpointing.FULL:
        return shape.layers
    if checkpointing is ActivationCheckpointing.PARTIAL:
        return (shape.layers + 1) // 2
    return 0


def activation_need(
    shape: ModelShape, kept: Kept, tokens: int, checkpointing: ActivationCheckpointing
) -> ActivationNeed:
    """The largest need is at the loss, or in the backward pass of the last layers."""
    again = checkpointed_layers(shape, checkpointing)
    of_layer, of_checkpoint = kept.of_layer(shape), kept.of_checkpoint(shape)
    of_kept, of_again = kept.backward_of_kept(shape), kept.backward_of_computed_again(shape)
    if again == 0:
        last_layers, first_layer = of_kept, of_layer + of_kept
    elif again == shape.layers or shape.layers % 2 == 1:
        last_layers, first_layer = of_again, of_checkpoint + of_again
    else:
        # The last layer is kept, and gone when the one before it is computed again.
        last_layers, first_layer = max(of_kept, of_again - of_layer), of_checkpoint + of_again
    logits = tokens * shape.vocabulary * kept.bytes_per_value
    return ActivationNeed(
        kept=tokens
        * ((shape.layers - again) * of_layer + again * of_checkpoint + kept.of_row(shape)),
        loss=tokens * kept.around_loss(shape) + pieces(kept) * min(logits, PIECE_BYTES),
        last_layers=tokens * last_layers,
        first_layer=tokens * first_layer,
    )


def pieces(kept: Kept) -> int:
    """As large as one piece of the logits, while its loss is computed."""
    if kept.compiled:
        return COMPILED_PIECES
    return EAGER_PIECES if kept.bytes_per_value < FLOAT32 else WIDE_PIECES
