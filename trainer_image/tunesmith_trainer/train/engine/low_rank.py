"""A frozen product with a low-rank update: y = x Wᵀ + s (x' Aᵀ) Bᵀ, x' being x after dropout.

The update is accumulated into the frozen product's own memory, in both directions: apart from the
two frozen products, a linear layer of a large model is bound by memory bandwidth, and PEFT's form
(product, product, product, scale, add, with 32-bit copies of the input) moves several times the
bytes. The inputs and the products are in the base model's type; the gradients of the master
weights A and B are 32-bit sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith_trainer.train.engine.weights import dense


@dataclass(frozen=True)
class Dropout:
    """Which values of x are kept, [n, in] of bool, and by what those are multiplied.

    A byte for each value is all that dropout keeps for the backward pass.
    """

    kept: Tensor
    factor: float


def drop(x: Tensor, rate: float) -> Dropout:
    return Dropout(torch.rand_like(x, dtype=torch.float32) >= rate, 1 / (1 - rate))


def low_rank_product(
    x: Tensor,
    dropout: Dropout | None,
    weight: Tensor,
    scales: Sequence[Tensor],
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> Tensor:
    """The result [n, out] for x [n, in].

    A [r, in] and B [out, r] are master weights, of which a copy in the type of x is computed with.
    """
    # An operation of its own: where activations are computed again for the backward pass, this is
    # all of a layer's last product that is.
    kept, factor = (None, 1.0) if dropout is None else (dropout.kept, dropout.factor)
    source = x.detach() if kept is None else x.detach() * kept * factor
    low = source @ a.detach().to(x.dtype).T
    return _with_update(x, low, kept, factor, weight, scales, a, b, scaling)


@torch.library.custom_op("tunesmith::with_low_rank_update", mutates_args=())  # type: ignore[untyped-decorator]
def _with_update(
    x: Tensor,
    low: Tensor,
    kept: Tensor | None,
    factor: float,
    weight: Tensor,
    scales: Sequence[Tensor],
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> Tensor:
    """``low`` is x' Aᵀ [n, r], without a gradient of its own: A's comes from here."""
    result = x @ dense(weight, scales, b.shape[0], a.shape[1], x.dtype).T
    return result.addmm_(low, b.to(x.dtype).T, alpha=scaling)


@_with_update.register_fake  # type: ignore[untyped-decorator]
def _shape(
    x: Tensor,
    low: Tensor,
    kept: Tensor | None,
    factor: float,
    weight: Tensor,
    scales: Sequence[Tensor],
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> Tensor:
    return x.new_empty(x.shape[0], b.shape[0])


@torch.library.custom_op("tunesmith::low_rank_gradients", mutates_args=())  # type: ignore[untyped-decorator]
def low_rank_gradients(
    gradient: Tensor,
    x: Tensor,
    low: Tensor,
    kept: Tensor | None,
    factor: float,
    weight: Tensor,
    scales: Sequence[Tensor],
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, A and B."""
    a_copy, b_copy = a.to(gradient.dtype), b.to(gradient.dtype)
    down = gradient @ b_copy
    through = gradient @ dense(weight, scales, b.shape[0], a.shape[1], gradient.dtype)
    if kept is None:
        source = x
        through.addmm_(down, a_copy, alpha=scaling)
    else:
        # Here and not before: the compiler would keep the values after dropout, twice a byte each.
        source = (x * kept).mul_(factor)
        through.add_((down @ a_copy).mul_(kept), alpha=scaling * factor)
    return (
        through,
        summed(down.T, source, a.dtype).mul_(scaling),
        summed(gradient.T, low, b.dtype).mul_(scaling),
    )


@low_rank_gradients.register_fake  # type: ignore[untyped-decorator]
def _gradient_shapes(
    gradient: Tensor,
    x: Tensor,
    low: Tensor,
    kept: Tensor | None,
    factor: float,
    weight: Tensor,
    scales: Sequence[Tensor],
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), a.new_empty(a.shape), b.new_empty(b.shape)


def summed(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """A product over all tokens in the master weight's type; a GPU does not round it before."""
    if left.is_cuda and dtype == torch.float32 and right.dtype == torch.bfloat16:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, low, kept, ctx.factor, weight, scales, a, b, ctx.scaling = inputs
    ctx.save_for_backward(x, low, kept, weight, a, b, *scales)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    x, low, kept, weight, a, b, *scales = ctx.saved_tensors
    through, of_a, of_b = low_rank_gradients(
        gradient, x, low, kept, ctx.factor, weight, scales, a, b, ctx.scaling
    )
    return through, None, None, None, None, [None] * len(scales), of_a, of_b, None


_with_update.register_autograd(_gradients, setup_context=_keep)
