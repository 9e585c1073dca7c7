"""Loading the frozen base model, for training and for evaluation alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.digests import MODEL_CONFIG, weight_files
from tunesmith.api.file_bounds import LARGEST_MODEL_CONFIGURATION
from tunesmith.api.safetensors_file import SafetensorsError, Tensor, read_tensors
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


#: Of any model, with room for what is to come.
MOST_LAYERS = 10_000
#: What a configuration may describe beyond the weights: an output layer that is not stored, as it
#: is the embedding, is at most as large as all the rest.
MOST_DESCRIBED_PER_STORED = 2


def read_configuration(folder: Path, uri: str) -> dict[str, Any]:
    """config.json of a model. Raises TrainerError unless it is one JSON object."""
    try:
        with (folder / MODEL_CONFIG).open("rb") as file:
            text = file.read(LARGEST_MODEL_CONFIGURATION + 1)
        if len(text) > LARGEST_MODEL_CONFIGURATION:
            raise unusable_configuration(uri, f"has more than {LARGEST_MODEL_CONFIGURATION} bytes")
        found = json.loads(text)
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


def read_weights(folder: Path, uri: str) -> list[Tensor]:
    """The tensors of a model by their headers alone. Raises TrainerError unless they are whole."""
    tensors = []
    for path in weight_files(folder):
        try:
            tensors += read_tensors(path)
        except (OSError, SafetensorsError) as error:
            what = f"cannot be read ({first_line(error)})" if isinstance(error, OSError) else error
            raise TrainerError(
                Reason.MODEL_UNUSABLE,
                f"{path.name} of {uri} {what}: copy the model anew, whole",
            ) from error
    return tensors


def require_fitting(folder: Path, uri: str) -> None:
    """Raises TrainerError for spoiled weights, and for a configuration of a far larger model.

    transformers compares their shapes after it has filled what does not fit with random numbers.
    What else is wrong with the configuration is raised as transformers says it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    weights = read_weights(folder, uri)
    if not weights:
        # Where it looked for them, transformers says best.
        return
    configuration = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(configuration, trust_remote_code=False)
    described = sum(parameter.numel() for parameter in empty.parameters())
    # Packed numbers have a bit at least.
    quantised = getattr(configuration, "quantization_config", None) is not None
    stored = sum(each.stored_bits if quantised else each.numbers for each in weights)
    if described > MOST_DESCRIBED_PER_STORED * stored:
        raise unusable_configuration(
            uri, f"describes a model of {described} numbers, and its weights have {stored}"
        )


def load_base_model(
    folder: Path, uri: str, compute_type: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model in the type it is computed in, never wider by accident."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        require_fitting(folder, uri)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute_type,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
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
    return model.to(device)


def context_length(model: PreTrainedModel) -> int | None:
    """Longest sequence the model was built for."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) else None
