"""From a model folder to a model that is ready to train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.method import Method
from tunesmith.api.training import Backend

from tunesmith_trainer import machine
from tunesmith_trainer.train.engine import base, head, layering
from tunesmith_trainer.train.engine.settings import EngineSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def prepare_model(
    folder: Path, uri: str, settings: EngineSettings, device: torch.device
) -> PeftModel | PreTrainedModel:
    """The folder's model with what ``settings.method`` trains, on the device.

    Raises TrainerError if the model cannot be loaded or adapted; ``uri`` is its name for people.
    """
    if settings.backend is Backend.UNSLOTH:
        from tunesmith_trainer.train.engine import unsloth

        return unsloth.prepare_model(folder, uri, settings)
    dtype = machine.compute_type(device)
    quantised = settings.method.is_quantised
    model = base.load(folder, uri, dtype, device, quantised=quantised)
    return equip(model, uri, settings)


def equip(
    model: PreTrainedModel, uri: str, settings: EngineSettings
) -> PeftModel | PreTrainedModel:
    """A loaded model with adapter, quick layers, checkpointing and a loss of its own."""
    from tunesmith_trainer.train.lora import lora_config, require_targets

    head.answer_with_loss(model)
    equipped: PeftModel | PreTrainedModel = model
    if settings.method is not Method.FULL:
        from peft import get_peft_model

        from tunesmith_trainer.train.engine.layers import quicken

        require_targets(model, settings.lora, uri)
        model.requires_grad_(False)
        equipped = get_peft_model(model, lora_config(settings.lora, settings.method))
        quicken(equipped)
    dropout = settings.method is not Method.FULL and settings.lora.dropout > 0
    layering.checkpoint(model, settings.checkpointing, dropout=dropout)
    if settings.compile:
        layering.compile_layers(model)
    model.config.use_cache = False
    return equipped
