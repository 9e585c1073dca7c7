"""Products with the frozen weights, held in 16 or 32 bits, or in 4 (NF4, arXiv:2305.14314).

Each product is one opaque operation. So the compiler neither fuses a dequantised weight into what
is kept for the backward pass nor merges the forward's dequantisation with the backward's: the 16
bits exist only while they are multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bitsandbytes.nn import Linear4bit

#: Values that share one scale, and scales that share one scale of their own.
BLOCK, NESTED_BLOCK = 64, 256


def nf4_scales(layer: Linear4bit) -> list[Tensor]:
    """The tensors with which ``dense`` restores the layer's weight from its packed values."""
    state = layer.weight.quant_state
    nested = state.state2
    return [state.absmax, nested.code, nested.absmax, state.offset]


def dense(
    weight: Tensor, scales: Sequence[Tensor], rows: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """The weight as a matrix [rows, columns]; for the moment, where it had to be dequantised."""
    if not scales:
        return weight
    absmax, code, nested_absmax, offset = scales
    operations = torch.ops.bitsandbytes
    largest = operations.dequantize_blockwise.default(
        absmax, nested_absmax, code, NESTED_BLOCK, torch.float32
    )
    return operations.dequantize_4bit.default(
        weight, largest + offset, BLOCK, "nf4", [rows, columns], dtype
    )


@torch.library.custom_op("tunesmith::frozen_product", mutates_args=())  # type: ignore[untyped-decorator]
def frozen_product(
    x: Tensor, weight: Tensor, scales: Sequence[Tensor], rows: int, columns: int, backwards: bool
) -> Tensor:
    """x [n, columns] times the transposed weight, or backwards: x [n, rows] times the weight."""
    matrix = dense(weight, scales, rows, columns, x.dtype)
    return x @ matrix if backwards else x @ matrix.T


@frozen_product.register_fake  # type: ignore[untyped-decorator]
def _shape(
    x: Tensor, weight: Tensor, scales: Sequence[Tensor], rows: int, columns: int, backwards: bool
) -> Tensor:
    return x.new_empty(x.shape[0], columns if backwards else rows)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, scales, ctx.rows, ctx.columns, ctx.backwards = inputs
    ctx.save_for_backward(weight, *scales)


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    weight, *scales = ctx.saved_tensors
    through = frozen_product(gradient, weight, scales, ctx.rows, ctx.columns, not ctx.backwards)
    return through, None, [None] * len(scales), None, None, None


frozen_product.register_autograd(_gradient, setup_context=_keep)
