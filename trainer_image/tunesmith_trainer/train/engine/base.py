"""Loading the base model for training: in the type it is computed in, or in 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory
from tunesmith_trainer.model import require_fitting
from tunesmith_trainer.train.engine import attention

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load(
    folder: Path, uri: str, dtype: torch.dtype, device: torch.device, *, quantised: bool
) -> PreTrainedModel:
    """Each weight goes to the device as it is read. Raises TrainerError if there is no model.

    In 4 bits: NF4 with double quantisation, computed in ``dtype`` (arXiv:2305.14314).
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    try:
        require_fitting(folder, uri)
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention.register(),
            use_safetensors=True,
            trust_remote_code=False,
            device_map={"": device},
            quantization_config=four_bits if quantised else None,
        )
    except TrainerError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} cannot be loaded as a causal language model ({first_line(error)}): use a "
            "model whose architecture this version of transformers knows, without remote code",
        ) from error
