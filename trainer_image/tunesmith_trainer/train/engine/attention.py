"""Attention among the tokens of one document, in a row of several.

The row is one sequence of all documents of a micro-batch, end to end, and ``cu_seq_lens_q`` tells
where each begins (transformers' name for it). transformers' own way without a flash-attn wheel is a
dense mask over the whole row: quadratic in its length, and the flash kernels do not take a mask.
Measured on an H100: flex_attention with a block mask trains no quicker, and cuDNN's kernels for
ragged rows take 40 times as long (torch 2.11, cuDNN 9.19).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError

#: The name under which transformers finds it.
NAME = "tunesmith_documents"


def register() -> str:
    """Make the attention known to transformers, which makes no mask for it. Returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    return NAME


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; query [batch, heads, tokens, width], and [1, …] in a row.

    Without ``cu_seq_lens_q`` each sequence of the batch is one document, and none is padded.
    """
    if softcap is not None or s_aux is not None:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{type(module).__name__} caps its attention scores or gives them a sink, which the "
            "trainer's attention does not: use a model of the Llama, Mistral, Qwen or Phi families",
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = -1 if sliding_window is None else sliding_window - 1
    if cu_seq_lens_q is None or max_length_q is None:
        return causal(query, key, value, scale, window).transpose(1, 2), None
    query, key, value = (each.transpose(1, 2)[0] for each in (query, key, value))
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        result, _, _ = flash(query, key, value, cu_seq_lens_q, max_length_q, scale, window)
    else:
        result = document_by_document(query, key, value, cu_seq_lens_q, scale, window)
    return result[None], None


def document_by_document(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float, window: int
) -> Tensor:
    """For CPUs: [tokens, heads, width] in and out."""
    results = []
    for span in pairwise(starts.tolist()):
        document = slice(*span)
        own_query, own_key, own_value = (
            each[document].transpose(0, 1)[None] for each in (query, key, value)
        )
        results.append(causal(own_query, own_key, own_value, scale, window)[0])
    return torch.cat(results, dim=1).transpose(0, 1)


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int) -> Tensor:
    """torch's own attention of one document; window: how far back it looks, -1 for all the way."""
    length = query.shape[-2]
    mask = None
    if -1 < window < length - 1:
        position = torch.arange(length, device=query.device)
        back = position[:, None] - position
        mask = (back >= 0) & (back <= window)
    return scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )


# --- on the GPU ----------------------------------------------------------------------------------


@torch.library.custom_op("tunesmith::flash_documents", mutates_args=())  # type: ignore[untyped-decorator]
def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """torch's flash kernels: [tokens, heads, width], fewer heads of key and value allowed.

    Returns the result, the logarithms of the sums, and the kernel's state. ``longest`` is a bound.
    """
    result, sums, state, _, _ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        starts,
        starts,
        longest,
        longest,
        0.0,
        True,
        False,
        scale=scale,
        window_size_left=window,
        window_size_right=0,
    )
    return result, sums, state


@flash.register_fake  # type: ignore[untyped-decorator]
def _shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape),
        query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32),
        query.new_empty((2,), dtype=torch.uint64),
    )


@torch.library.custom_op("tunesmith::flash_documents_gradients", mutates_args=())  # type: ignore[untyped-decorator]
def flash_gradients(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    result: Tensor,
    sums: Tensor,
    state: Tensor,
    starts: Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    of_query, of_key, of_value = torch.ops.aten._flash_attention_backward(
        gradient,
        query,
        key,
        value,
        result,
        sums,
        starts,
        starts,
        longest,
        longest,
        0.0,
        True,
        state,
        torch.empty(0, device=query.device),
        scale=scale,
        window_size_left=window,
        window_size_right=0,
    )
    return of_query, of_key, of_value


@flash_gradients.register_fake  # type: ignore[untyped-decorator]
def _gradient_shapes(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    result: Tensor,
    sums: Tensor,
    state: Tensor,
    starts: Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, starts, ctx.longest, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, starts)


def _gradients(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Any, ...]:
    gradients = flash_gradients(gradient, *ctx.saved_tensors, ctx.longest, ctx.scale, ctx.window)
    return *gradients, None, None, None, None


flash.register_autograd(_gradients, setup_context=_keep)
