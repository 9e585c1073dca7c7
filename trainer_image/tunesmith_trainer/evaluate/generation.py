"""What a model answers: the most likely text after each prompt, through lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.failure import TrainerError

if TYPE_CHECKING:
    from tunesmith_trainer.evaluate.sides import WatchedModel


def generate(model: WatchedModel, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """The answers, in the order of the prompts. No prompt is cut: see ``require_room``."""
    from lm_eval.api.instance import Instance

    settings = {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens}
    requests = [
        Instance(
            request_type="generate_until", doc={}, arguments=(prompt, dict(settings)), idx=index
        )
        for index, prompt in enumerate(prompts)
    ]
    return model.generate_until(requests) if requests else []


def require_room(
    prompts: Sequence[str], chat: ChatFormat, name: str, max_new_tokens: int, context: int
) -> None:
    """A prompt that does not fit would be cut from the left in silence."""
    longest = max(chat.count_tokens(prompt) for prompt in prompts)
    if longest + max_new_tokens > context:
        raise TrainerError(
            Reason.EXAMPLES_TOO_LONG,
            f"suite {name}: the longest question has {longest} tokens, and with "
            f"maxNewTokens {max_new_tokens} it exceeds the model's context of {context}: "
            "lower maxNewTokens or shorten the questions",
        )
