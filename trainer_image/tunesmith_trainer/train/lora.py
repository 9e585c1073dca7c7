"""The adapter's shape, checked against the layers that the model really has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunesmith.api.method import InitLoraWeights, Lora, Method
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel


#: PEFT's words; True is Kaiming-uniform A and zero B.
INITIALISATIONS = {
    InitLoraWeights.DEFAULT: True,
    InitLoraWeights.GAUSSIAN: "gaussian",
    InitLoraWeights.ORTHOGONAL: "orthogonal",
}


def lora_config(lora: Lora, method: Method) -> LoraConfig:
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.target_modules),
        use_rslora=lora.use_rslora,
        use_dora=method.is_dora,
        init_lora_weights=INITIALISATIONS[lora.init_lora_weights],
        bias="none",
    )


def require_targets(model: PreTrainedModel, lora: Lora, base_model_uri: str) -> None:
    """Every name must match: an adapter on half of what was asked for is a silent failure."""
    layers = linear_layers(model)
    missing = [name for name in lora.target_modules if name not in layers]
    if missing:
        raise TrainerError(
            Reason.TARGET_MODULES_NOT_FOUND,
            f"{base_model_uri} has no layers named {', '.join(missing)}: set lora.targetModules to "
            f"some of the linear layers that it has, which are {', '.join(sorted(layers))}",
        )


def linear_layers(model: PreTrainedModel) -> set[str]:
    """Last names of the model's linear layers, without the output head, which is not adapted."""
    import torch

    head = model.get_output_embeddings()
    return {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def save_adapter(model: PeftModel, folder: Path, base_model_uri: str) -> None:
    """Write weights and configuration, and nothing else.

    PeftModel.save_pretrained would also ask the hub about the base model and write a model card.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})

    config = model.active_peft_config
    config.inference_mode = True
    # PEFT notes the folder that the model was loaded from. A pod's mount path means nothing to
    # whoever serves the adapter; the uri does.
    config.base_model_name_or_path = base_model_uri
    written = {
        # PEFT keeps names in sets, whose order changes from one process to the next; the digest
        # must not.
        name: sorted(value) if isinstance(value, set) else value
        for name, value in config.to_dict().items()
    }
    text = json.dumps(written, indent=2, sort_keys=True, default=str)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
