"""Proof that the adapter does something.

An adapter that is loaded but not applied answers exactly as its base model does, and passes every
gate that only asks for no loss.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.evaluate.sides import Sides, WatchedModel
from tunesmith_trainer.failure import TrainerError

if TYPE_CHECKING:
    import torch

#: One tensor for each text, of shape (tokens,).
Likelihoods = list["torch.Tensor"]

log = logging.getLogger(__name__)

#: Texts of each suite.
CANARY_ITEMS = 4
#: The last tokens of a text are enough, and cost little memory.
LAST_TOKENS = 256
#: Least change of a token's log-likelihood that counts as one. Without the adapter it is exactly 0.
LEAST_CHANGE = 1e-5


def require_effect(sides: Sides, texts: Sequence[str], uri: str) -> None:
    """Some token must be more or less likely with the adapter than without it."""
    without, with_it = (likelihoods(sides, side, texts) for side in (Side.BASE, Side.ADAPTER))
    change = largest_change(without, with_it)
    log.info("%s changes log-likelihoods by up to %.3g", uri, change)
    if math.isnan(change):
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} makes log-likelihoods that are no numbers: its weights hold NaN or infinity. "
            "Train it again, with a lower learning rate",
        )
    if change < LEAST_CHANGE:
        raise TrainerError(
            Reason.ADAPTER_NOT_APPLIED,
            f"{uri} changes nothing: with and without it every token is equally likely. Its "
            "weights are zero, or belong to layers that this base model does not have: train it "
            "again, with a higher learning rate if it was very low; a merged model is to be "
            "merged again",
        )


def require_same_base(before: Likelihoods, after: Likelihoods, uri: str) -> None:
    """With the adapter attached and switched off, the base model must be what it was before.

    Some adapters rewrite its weights when they are loaded (the initialisations PiSSA and OLoRA), or
    its biases, and switching them off does not undo that.
    """
    change = largest_change(before, after)
    if change != 0:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} changes the base model even when it is switched off (by {change:.2g} in "
            "log-likelihood), so the two cannot be compared: convert it to a plain LoRA without "
            "biases, or evaluate the merged model",
        )


def largest_change(some: Likelihoods, others: Likelihoods) -> float:
    """NaN if a value is no number; 0 without values."""
    import torch

    changes = torch.cat([(a - b).abs() for a, b in zip(some, others, strict=True)])
    return float(changes.max()) if len(changes) else 0.0


def likelihoods(sides: Sides, side: Side, texts: Sequence[str]) -> Likelihoods:
    """Log-likelihood of each of the last tokens of every text."""
    with sides.on(side) as asked:
        return [of_text(asked, text) for text in texts]


def of_text(asked: WatchedModel, text: str) -> torch.Tensor:
    import torch

    tokens = torch.tensor([asked.tok_encode(text)], device=asked.device)
    kept = min(LAST_TOKENS, tokens.shape[1] - 1)
    if kept < 1:
        return torch.zeros(0)
    with torch.inference_mode():
        logits = asked.model(tokens, logits_to_keep=kept + 1).logits[0, :-1]
        found = logits.float().log_softmax(-1).gather(1, tokens[0, -kept:, None])
    return found[:, 0].cpu()
