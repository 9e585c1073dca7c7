"""Proof that the adapter does something.

An adapter that is loaded but not applied answers exactly as its base model does, and passes every
gate that only asks for no loss.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.chat import Example
from tunesmith_trainer.failure import TrainerError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

log = logging.getLogger(__name__)

CANARY_ITEMS = 4
#: Least change of a token's log-likelihood that counts as one. Without the adapter it is exactly 0.
LEAST_CHANGE = 1e-5


def require_effect(model: PeftModel, examples: Sequence[Example], adapter_uri: str) -> None:
    """Some expected token must be more or less likely with the adapter than without it."""
    change = max(largest_change(model, example) for example in examples[:CANARY_ITEMS])
    log.info("the adapter changes log-likelihoods by up to %.3g", change)
    if change < LEAST_CHANGE:
        raise TrainerError(
            Reason.ADAPTER_NOT_APPLIED,
            f"{adapter_uri} changes nothing: with and without it the expected answers are equally "
            "likely. Its weights are zero, or belong to layers that this base model does not "
            "have: train it again, with a higher learning rate if it was very low",
        )


def largest_change(model: PeftModel, example: Example) -> float:
    import torch

    with torch.inference_mode():
        adapted = log_likelihoods(model, example)
        with model.disable_adapter():
            plain = log_likelihoods(model, example)
    return float((adapted - plain).abs().max())


def log_likelihoods(model: PeftModel, example: Example) -> torch.Tensor:
    """Log-likelihood of each token of the expected answer."""
    import torch

    tokens = torch.tensor([example.tokens], device=model.device)
    answer = tokens[0, example.prompt_length :]
    logits = model(tokens, logits_to_keep=len(answer) + 1).logits[0, :-1]
    return logits.float().log_softmax(-1).gather(1, answer[:, None])[:, 0]
