"""What a forward pass keeps for its backward pass, counted tensor by tensor. Pure.

The tensors are those of a fused step: RMSNorm keeps its input, flash attention its queries, keys,
values and output, a linear layer with something to train its input, the gated MLP both halves.
Counted so, a token of Llama-3.1-8B keeps 4.26 MiB; an H100 showed 4.25 (facts of one H100 80GB,
torch 2.11.0, transformers 5.23.0, peft 0.21.2, rows B4 and Q3).
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.memory import ActivationCheckpointing
from tunesmith.api.method import Method
from tunesmith.memory_planner.model_shape import Linear, ModelShape

FLOAT32 = 4


@dataclass(frozen=True)
class Engine:
    """Whose code does the step, as far as memory shows it."""

    #: Temporaries while a layer's gradient is computed, in units of what that layer keeps.
    backward: float
    #: Whether the input of each adapter is kept as dropout left it. The compiler makes it again
    #: from the input itself and the mask.
    keeps_dropped: bool
    #: Tensors as large as a piece of the logits in 16 bits, while its loss is computed.
    pieces: int


#: Each layer compiled (torch.compile): Inductor holds what a layer keeps until its whole backward
#: is done. ``backward`` fits rows C2 (0.88) and C4 (1.06) of the same measurements.
COMPILED = Engine(backward=1.0, keeps_dropped=False, pieces=2)
#: Kernels called one by one, each freeing what it used. Rows B4 (0.20) and B6 (0.28).
EAGER = Engine(backward=0.25, keeps_dropped=True, pieces=5)

#: Of the logits of one piece, as the trainer's head cuts them.
PIECE_BYTES = 512 * 2**20
#: Logits in 32 bits need no wider copies: they and their logarithms.
WIDE_PIECES = 2
#: Hidden states around the loss: the last layer's output, its norm, the rows that carry a label,
#: and their gradient. Two of them are left when the last layer's gradient is computed.
HIDDEN_AT_LOSS, HIDDEN_AFTER_LOSS = 4, 2


@dataclass(frozen=True)
class Kept:
    """What decides the bytes that a token keeps."""

    method: Method
    rank: int
    dropout: float
    targets: tuple[Linear, ...]
    bytes_per_value: int
    engine: Engine

    def of_layer(self, shape: ModelShape) -> int:
        """Bytes of one token in one layer without activation checkpointing."""
        values = (
            self._attention_values(shape)
            + self._mlp_values(shape)
            + self._norm_values(shape)
            + self._adapter_values()
        )
        return values * self.bytes_per_value + self._mask_bytes() + shape.heads * FLOAT32

    def of_checkpoint(self, shape: ModelShape) -> int:
        """Bytes of one token in one layer that is computed again: the layer's input."""
        return shape.hidden * self.bytes_per_value

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
        return normed + (2 + self._trains("down_proj")) * shape.intermediate

    def _norm_values(self, shape: ModelShape) -> int:
        values = shape.family.norms * shape.hidden
        if shape.family.query_key_norms:
            values += shape.attention_width + shape.kv_width
        return values

    def _adapter_values(self) -> int:
        """x A of each adapter, what dropout left of its input, and DoRA's output before its rows
        are rescaled."""
        values = self.rank * len(self.targets)
        if self.engine.keeps_dropped:
            values += self._mask_bytes()
        if self.method.is_dora:
            values += sum(linear.outputs for linear in self.targets)
        return values

    def _mask_bytes(self) -> int:
        """One for each value that dropout may drop."""
        return sum(linear.inputs for linear in self.targets) if self.dropout > 0 else 0


@dataclass(frozen=True)
class ActivationNeed:
    """Bytes of one micro-batch. Of the last two only one is there at a time."""

    #: What all layers keep.
    kept: float
    #: At the turn from forward to backward pass: around the loss.
    loss: float
    #: After it: the last layer computed again where it is not kept, and its temporaries.
    layer: float

    @property
    def peak(self) -> float:
        return self.kept + max(self.loss, self.layer)


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
    """The largest need is in the backward pass of the last layer, or at the loss before it."""
    again = checkpointed_layers(shape, checkpointing)
    of_layer, of_checkpoint = kept.of_layer(shape), kept.of_checkpoint(shape)
    is_last_again = again == shape.layers or (again > 0 and shape.layers % 2 == 1)
    hidden = shape.hidden * kept.bytes_per_value
    logits = tokens * shape.vocabulary * kept.bytes_per_value
    pieces = kept.engine.pieces if kept.bytes_per_value < FLOAT32 else WIDE_PIECES
    return ActivationNeed(
        kept=tokens * ((shape.layers - again) * of_layer + again * of_checkpoint),
        loss=tokens * HIDDEN_AT_LOSS * hidden + pieces * min(logits, PIECE_BYTES),
        layer=tokens
        * (HIDDEN_AFTER_LOSS * hidden + (is_last_again + kept.engine.backward) * of_layer),
    )
