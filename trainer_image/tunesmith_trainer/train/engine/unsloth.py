"""Training through Unsloth's own model, where a platform has installed it beside the trainer.

Its licence and its versions of torch and transformers are the platform's choice; the trainer's
image does not bring it. Written after Unsloth's documentation (FastLanguageModel), and not run
here: there is no GPU of its kind in this repository's tests.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.memory import ActivationCheckpointing
from tunesmith.api.method import Method
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line
from tunesmith_trainer.train.engine import head
from tunesmith_trainer.train.engine.settings import EngineSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def prepare_model(folder: Path, uri: str, settings: EngineSettings) -> PeftModel | PreTrainedModel:
    """Unsloth's model, adapted. Raises TrainerError where Unsloth is missing or cannot do it."""
    unsloth = require_unsloth()
    if settings.method.is_dora:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"Unsloth does not train {settings.method}: set backend to Tunesmith, or method to "
            "LoRA or QLoRA",
        )
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=settings.max_length,
        load_in_4bit=settings.method.is_quantised,
        full_finetuning=settings.method is Method.FULL,
        local_files_only=True,
        trust_remote_code=False,
    )
    head.answer_with_loss(model)
    if settings.method is Method.FULL:
        return model
    lora = settings.lora
    keeps_all = settings.checkpointing is ActivationCheckpointing.OFF
    return unsloth.FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.target_modules),
        use_rslora=lora.use_rslora,
        bias="none",
        use_gradient_checkpointing=False if keeps_all else "unsloth",
    )


def require_unsloth() -> Any:
    try:
        unsloth = import_module("unsloth")
    except (ImportError, NotImplementedError, RuntimeError) as error:
        # Without a GPU it raises an error of another kind as it is imported.
        raise TrainerError(
            Reason.BACKEND_MISSING,
            f"backend Unsloth cannot be used in this image ({first_line(error)}): install unsloth "
            "in an image of your own and set it as the trainer's, or set backend to Tunesmith",
        ) from error
    return unsloth
