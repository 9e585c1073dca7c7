"""Proof that the adapter does something.

An adapter that is loaded but not applied answers exactly as its base model does, and passes every
gate that only asks for no loss.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.evaluate.sides import Sides
from tunesmith_trainer.failure import TrainerError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CANARY_ITEMS = 4
#: The last tokens of a text are enough, and cost little memory.
LAST_TOKENS = 256
#: Least change of a token's log-likelihood that counts as one. Without the adapter it is exactly 0.
LEAST_CHANGE = 1e-5


def require_effect(sides: Sides, texts: Sequence[str], uri: str) -> None:
    """Some token must be more or less likely with the adapter than without it."""
    change = max(largest_change(sides, text) for text in texts[:CANARY_ITEMS])
    log.info("%s changes log-likelihoods by up to %.3g", uri, change)
    if change < LEAST_CHANGE:
        raise TrainerError(
            Reason.ADAPTER_NOT_APPLIED,
            f"{uri} changes nothing: with and without it the expected answers are equally "
            "likely. Its weights are zero, or belong to layers that this base model does not "
            "have: train it again, with a higher learning rate if it was very low",
        )


def largest_change(sides: Sides, text: str) -> float:
    return float((_of(sides, Side.ADAPTER, text) - _of(sides, Side.BASE, text)).abs().max())


def _of(sides: Sides, side: Side, text: str) -> torch.Tensor:
    """Log-likelihood of each of the last tokens of a text."""
    import torch

    with sides.on(side) as asked, torch.inference_mode():
        tokens = torch.tensor([asked.tok_encode(text)], device=asked.device)
        kept = min(LAST_TOKENS, tokens.shape[1] - 1)
        logits = asked.model(tokens, logits_to_keep=kept + 1).logits[0, :-1]
        following = tokens[0, -kept:, None]
        return logits.float().log_softmax(-1).gather(1, following)[:, 0]
