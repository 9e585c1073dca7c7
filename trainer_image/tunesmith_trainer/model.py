"""Loading the frozen base model, for training and for evaluation alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_base_model(
    folder: Path, uri: str, compute_type: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model in the type it is computed in, never wider by accident."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=compute_type, attn_implementation="sdpa", use_safetensors=True
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
