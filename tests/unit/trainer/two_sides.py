"""A base model and a random adapter on it, to be asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def two_sides(folder: Path, answered: Callable[[int], None] = lambda _: None) -> Any:
    """The adapter is large enough that both sides answer differently."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    from tunesmith_trainer.data.chat import load_chat_format
    from tunesmith_trainer.evaluate.sides import Sides, WatchedModel, quieten

    quieten()
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    chat = load_chat_format(folder, "pvc://models/tiny")
    model = WatchedModel(adapted.eval(), chat, answered)
    return Sides(model, model)
