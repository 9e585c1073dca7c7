"""Whether a document in a row of several is trained as if it were alone, on the GPU's own kernels.

On CPUs the tests compare whole models (tests/unit/trainer/test_engine_packing.py); the kernels for
rows of documents are only there on a GPU.
"""

from __future__ import annotations

import random
from typing import Any

HEADS, KEY_HEADS, WIDTH, LONGEST, TOKENS = 32, 8, 128, 2048, 8192


def measure_isolation() -> dict[str, float]:
    """Largest relative difference, of the result and of each gradient, between the kernel for rows
    and the same documents one by one; and of the row as one document, which must be another."""
    import torch
    from tunesmith_trainer.train.engine import attention

    torch.manual_seed(0)
    query, key, value = (
        torch.randn(TOKENS, heads, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    inputs = (query, key, value)
    slope = torch.randn_like(query)
    scale = WIDTH**-0.5

    def outcome(result: Any) -> list[Any]:
        return [result, *torch.autograd.grad(result, inputs, slope)]

    starts = starts_of(torch)
    whole = torch.tensor([0, TOKENS], device="cuda", dtype=torch.int32)
    packed = outcome(attention.flash(*inputs, starts, LONGEST, scale, -1)[0])
    alone = outcome(attention.document_by_document(*inputs, starts, scale, -1))
    mixed = outcome(attention.flash(*inputs, whole, TOKENS, scale, -1)[0])
    return {"apart": largest(packed, alone), "mixed": largest(mixed, alone)}


def starts_of(torch: Any) -> Any:
    draw, starts = random.Random(0), [0]
    while starts[-1] < TOKENS:
        length = min(LONGEST, max(2, int(draw.lognormvariate(5, 1))))
        starts.append(min(TOKENS, starts[-1] + length))
    return torch.tensor(starts, device="cuda", dtype=torch.int32)


def largest(found: list[Any], wanted: list[Any]) -> float:
    return max(
        float(
            (one.detach().float() - other.detach().float()).norm() / other.detach().float().norm()
        )
        for one, other in zip(found, wanted, strict=True)
    )
