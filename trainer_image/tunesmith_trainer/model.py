"""Loading the frozen base model, for training and for evaluation alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.digests import MODEL_CONFIG
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


#: Of any model, with room for what is to come.
MOST_LAYERS = 10_000


def read_configuration(folder: Path, uri: str) -> dict[str, Any]:
    """config.json of a model. Raises TrainerError unless it is one JSON object."""
    try:
        found = json.loads((folder / MODEL_CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise unusable_configuration(uri, f"cannot be read ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise unusable_configuration(uri, f"is a {type(found).__name__}, not an object")
    for part in (found, found.get("text_config")):
        layers = part.get("num_hidden_layers") if isinstance(part, dict) else None
        if isinstance(layers, int) and layers > MOST_LAYERS:
            # Made one by one before a single weight is looked for.
            raise unusable_configuration(uri, f"states {layers} layers")
    return found


def unusable_configuration(uri: str, what: str) -> TrainerError:
    return TrainerError(
        Reason.MODEL_UNUSABLE,
        f"{MODEL_CONFIG} of {uri} {what}: copy the model anew, as save_pretrained() writes it",
    )


def load_base_model(
    folder: Path, uri: str, compute_type: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model in the type it is computed in, never wider by accident."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute_type,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} cannot be loaded as a causal language model ({first_line(error)}): use a "
            "model whose architecture this version of transformers knows, without remote code",
        ) from error
    return model.to(device)


def context_length(model: PreTrainedModel) -> int | None:
    """Longest sequence the model was built for."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) else None
