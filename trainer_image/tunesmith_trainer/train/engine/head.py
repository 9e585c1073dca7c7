"""Cross-entropy straight from hidden states: the logits never exist all at once.

The forward pass computes the gradient of the hidden states, piece by piece, while it has a piece's
logits; the backward pass only scales it. So the output layer is multiplied with once per direction,
and a piece of logits is all the memory it takes. The idea is Liger's (arXiv:2410.10989); only
positions that carry a label come here, and nothing waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

#: Bytes of the logits of one piece.
PIECE_BYTES = 512 * 2**20


def answer_with_loss(model: nn.Module) -> None:
    """Let a causal language model answer with its summed loss when it is given targets.

    Inside the model's own forward pass, so that what wraps the model (DDP, FSDP) sees the head.
    """
    forward = model.forward

    def with_loss(
        self: Any,
        *arguments: Any,
        target_positions: Tensor | None = None,
        targets: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if targets is None or target_positions is None:
            return forward(*arguments, **inputs)
        passed = {name: value for name, value in inputs.items() if name not in ANSWERS}
        hidden = self.base_model(**passed, use_cache=False).last_hidden_state
        rows = hidden.reshape(-1, hidden.shape[-1])[target_positions]
        return summed_loss(rows, self.get_output_embeddings().weight, targets)

    model.forward = MethodType(with_loss, model)


#: Arguments that PEFT passes on to a model's head, and that its body does not know.
ANSWERS = frozenset({"labels", "logits_to_keep"})


def summed_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of hidden [n, width] @ weight [vocabulary, width]ᵀ; 32-bit."""
    return SummedLoss.apply(hidden, weight, targets)


class SummedLoss(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        ctx.of_hidden = torch.empty_like(hidden) if of_hidden else None
        ctx.of_weight = torch.zeros_like(weight) if of_weight else None
        piece = max(1, PIECE_BYTES // (weight.shape[0] * weight.element_size()))
        for start in range(0, len(targets), piece):
            part = slice(start, start + piece)
            logits = hidden[part] @ weight.T
            wanted = of_hidden or of_weight
            loss, gradient = piece_of_loss(hidden.is_cuda)(logits, targets[part], wanted)
            total += loss
            if gradient is not None and of_hidden:
                torch.mm(gradient, weight, out=ctx.of_hidden[part])
            if gradient is not None and of_weight:
                ctx.of_weight.addmm_(gradient.T, hidden[part])
            del logits, gradient
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradients are consumed: a second backward pass over the same graph has none."""
        of_hidden, of_weight = (
            None if each is None else each.mul_(gradient) for each in (ctx.of_hidden, ctx.of_weight)
        )
        ctx.of_hidden = ctx.of_weight = None
        return of_hidden, of_weight, None


def in_one_go(logits: Tensor, targets: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The summed loss of some rows, 32-bit, and its gradient in the type of the logits.

    Written for the compiler: it reads the logits twice and writes the gradient once.
    """
    wide = logits.float()
    normaliser = wide.logsumexp(-1, keepdim=True)
    loss = (normaliser - wide.gather(1, targets[:, None])).sum()
    if not wanted:
        return loss, None
    token = torch.arange(logits.shape[1], device=logits.device)
    gradient = (wide - normaliser).exp() - (token == targets[:, None]).float()
    return loss, gradient.to(logits.dtype)


def step_by_step(logits: Tensor, targets: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The same in the fewest passes that torch makes without a compiler."""
    logarithms = logits.float().log_softmax(-1)
    chosen = targets[:, None]
    loss = -logarithms.gather(1, chosen).sum()
    if not wanted:
        return loss, None
    gradient = logarithms.exp_()
    gradient.scatter_add_(1, chosen, gradient.new_full(chosen.shape, -1.0))
    return loss, gradient.to(logits.dtype)


@cache
def piece_of_loss(
    on_gpu: bool,
) -> Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]:
    return torch.compile(in_one_go, dynamic=True) if on_gpu else step_by_step
