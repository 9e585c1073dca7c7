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

#: Of the tensors of a head-by-length matrix of scores where flash attention cannot be used, per
#: value: the capped and the masked scores and the weights in 16 bits, the softmax in 32 bits.
#: Counted in transformers' eager attention; not measured.
SCORE_BYTES = 2 + 2 + 2 + 4


@dataclass(frozen=True)
class Engine:
    """Whose code does the step, as far as memory shows it."""

    #: Temporaries while a layer's gradient is computed, in units of what that layer keeps.
    backward: float
    #: Whether the input of each adapter is kept as dropout left it. The compiler makes it again
    #: from the input itself and the mask.
    keeps_dropped: bool


#: Each layer compiled (torch.compile): Inductor holds what a layer keeps until its whole backward
#: is done. Fitted to rows C2 (0.83) and C4 (1.06) of the same measurements.
COMPILED = Engine(backward=0.95, keeps_dropped=False)
#: Fused kernels called one by one, each freeing what it used. Rows B4 (0.20) and B6 (0.28).
EAGER = Engine(backward=0.25, keeps_dropped=True)

#: Hidden states around the loss, each of a token: the last layer's output, its norm, the gradient,
#: and the piece of the logits that is made at a time. Liger's fused cross-entropy takes pieces of
#: tokens * hidden / vocabulary rows, so that a piece is as large as a hidden state; in 32 bits,
#: two.
LOSS_HIDDEN_STATES = 5


@dataclass(frozen=True)
class Kept:
    """What decides the bytes that a token keeps."""

    method: Method
    rank: int
    dropout: float
    targets: tuple[Linear, ...]
    length: int
    bytes_per_value: int
    engine: Engine

    def of_layer(self, shape: ModelShape) -> int:
        """Bytes of one token in one layer without activation checkpointing."""
        values = self._attention_values(shape) + self._mlp_values(shape) + self._norm_values(shape)
        return values * self.bytes_per_value + self._score_bytes(shape) + self._adapter_bytes()

    def of_checkpoint(self, shape: ModelShape) -> int:
        """Bytes of one token in one layer that is computed again: the layer's input."""
        return shape.hidden * self.bytes_per_value

    def of_loss(self, shape: ModelShape) -> int:
        return LOSS_HIDDEN_STATES * shape.hidden * self.bytes_per_value

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

    def _score_bytes(self, shape: ModelShape) -> int:
        """Flash attention keeps a logarithm per head and token."""
        if shape.soft_capped_attention:
            return shape.heads * self.length * SCORE_BYTES
        return shape.heads * FLOAT32

    def _adapter_bytes(self) -> int:
        """x A of each adapter; where there is dropout its mask, a byte for each value of its input;
        for DoRA also the output whose rows are rescaled."""
        values = self.rank * len(self.targets)
        masks = 0
        if self.dropout > 0:
            masks = sum(linear.inputs for linear in self.targets)
            values += masks * self.engine.keeps_dropped
        if self.method.is_dora:
            values += sum(linear.outputs for linear in self.targets)
        return values * self.bytes_per_value + masks


def checkpointed_layers(shape: ModelShape, checkpointing: ActivationCheckpointing) -> int:
    """Partial computes every second layer again, but never the last: layers 0, 2, 4, ..."""
    if checkpointing is ActivationCheckpointing.FULL:
        return shape.layers
    if checkpointing is ActivationCheckpointing.PARTIAL:
        return shape.layers // 2
    return 0


def activation_bytes(
    shape: ModelShape,
    kept: Kept,
    tokens: int,
    checkpointing: ActivationCheckpointing,
) -> float:
    """Most bytes of activations of a micro-batch of so many tokens, without the loss's.

    The peak is in the backward pass of the last layer: what all layers keep, that layer computed
    again where it is not kept, and its temporaries. With Partial the last layer is kept, and gone
    when the one before it is computed again.
    """
    again = checkpointed_layers(shape, checkpointing)
    of_layer, of_checkpoint = kept.of_layer(shape), kept.of_checkpoint(shape)
    layers = (shape.layers - again) * of_layer + again * of_checkpoint
    recomputed = of_layer if again == shape.layers else 0
    return tokens * (layers + recomputed + kept.engine.backward * of_layer)
