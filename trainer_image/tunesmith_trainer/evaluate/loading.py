"""Loading whoever answers: the base model, alone, with an adapter, or beside a merged model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import EvaluationPlan

from tunesmith_trainer import machine
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.evaluate.canary import likelihoods, require_same_base
from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.evaluate.sides import Sides, WatchedModel, attach_adapter
from tunesmith_trainer.model import load_base_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_sides(
    plan: EvaluationPlan,
    base_folder: Path,
    candidate: Path | None,
    chat: ChatFormat,
    answered: Callable[[int], None],
    texts: Sequence[str],
) -> Sides:
    """The models in memory. An adapter costs no second model, a merged model does.

    On ``texts`` the base side is seen to be the base model, although an adapter is attached.
    """
    from transformers import GenerationConfig

    def load(folder: Path, uri: str) -> PreTrainedModel:
        device = machine.device()
        model = load_base_model(folder, uri, machine.compute_type(device), device)
        # Nothing but the end of an answer: a model's own wishes (a penalty on repetition, a bound
        # of its own) do not lead to the most likely text.
        model.generation_config = GenerationConfig(eos_token_id=sorted(chat.stop_tokens))
        return model

    base = load(base_folder, plan.base_model.uri)
    watched = WatchedModel(base, chat, answered)
    if plan.adapter and candidate:
        before = likelihoods(Sides(watched), Side.BASE, texts)
        both = WatchedModel(attach_adapter(base, candidate, plan.adapter.uri), chat, answered)
        require_same_base(
            before, likelihoods(Sides(both, both), Side.BASE, texts), plan.adapter.uri
        )
        return Sides(both, both)
    if plan.merged_model and candidate:
        merged = load(candidate, plan.merged_model.uri)
        return Sides(watched, WatchedModel(merged, chat, answered))
    return Sides(watched)
