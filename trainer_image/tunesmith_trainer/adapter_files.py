"""An adapter's files before PEFT opens them: it checks few of them, and bounds nothing.

PEFT makes what the configuration describes before it looks at the weights, and matches regular
expressions of the configuration with the name of every module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunesmith.api.file_bounds import (
    LARGEST_ADAPTER_CONFIGURATION,
    LARGEST_ADAPTER_HEADER,
    LARGEST_ADAPTER_WEIGHTS,
)
from tunesmith.api.quoting import quoted
from tunesmith.api.safetensors_file import SafetensorsError, read_tensors
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory
from tunesmith_trainer.time_limit import in_time

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

LARGEST_RANK = 1_000_000
#: Of the names of all modules with all patterns: milliseconds are usual. PEFT does it once more.
LONGEST_MATCHING_SECONDS = 10.0
#: The first copies layers as often as it says, the second imports a module that it names.
FOREIGN_LAYOUTS = ("layer_replication", "megatron_config")


def require_bounded(model: PreTrainedModel, folder: Path, uri: str) -> None:
    """Raises TrainerError unless PEFT can put the adapter on the model in bounded time and memory.

    Whether it fits the model is left to PEFT.
    """
    stored = stored_numbers(folder, uri)
    described = described_numbers(model, read_configuration(folder, uri), uri)
    if described > stored:
        raise unusable(
            f"the adapter {uri} does not fit the base model ({ADAPTER_CONFIG} describes "
            f"{described} numbers for it, and {ADAPTER_WEIGHTS} has {stored})",
            "name the base model, r, rank_pattern and target_modules that it was trained with",
        )


def stored_numbers(folder: Path, uri: str) -> int:
    """How many the weights are, by their header alone."""
    try:
        tensors = read_tensors(folder / ADAPTER_WEIGHTS, LARGEST_ADAPTER_HEADER)
    except (OSError, SafetensorsError) as error:
        raise unusable(
            f"{ADAPTER_WEIGHTS} of {uri} {said(error)}", "copy it anew from where it was trained"
        ) from error
    if tensors and tensors[-1].end > LARGEST_ADAPTER_WEIGHTS:
        raise unusable(
            f"{ADAPTER_WEIGHTS} of {uri} has {tensors[-1].end} bytes, more than any LoRA adapter",
            "if it is a whole model, name it as mergedModel",
        )
    return sum(tensor.numbers for tensor in tensors)


def said(error: Exception) -> str:
    return f"cannot be read ({first_line(error)})" if isinstance(error, OSError) else str(error)


def read_configuration(folder: Path, uri: str) -> LoraConfig:
    from peft import LoraConfig, PeftConfig

    raw = read_object(folder / ADAPTER_CONFIG, uri)
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise unusable(
            f"{ADAPTER_CONFIG} of {uri} has peft_type {quoted(kind)}, not LORA",
            "only LoRA and DoRA adapters are evaluated, merged and served",
        )
    for key in FOREIGN_LAYOUTS:
        if raw.get(key):
            raise unusable(f"{ADAPTER_CONFIG} of {uri} sets {key}", "train without it")
    try:
        configuration = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        # Whatever PEFT makes of keys and values of strangers.
        if is_out_of_memory(error):
            raise
        raise unreadable(uri, f"cannot be read ({quoted(first_line(error))})") from error
    assert isinstance(configuration, LoraConfig)
    if configuration.target_modules is None and configuration.target_parameters is None:
        # PEFT would choose; what it has saved says what it chose.
        raise unreadable(uri, "has no target_modules")
    require_ranks(configuration, uri)
    return configuration


def read_object(path: Path, uri: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_ADAPTER_CONFIGURATION + 1)
        if len(text) > LARGEST_ADAPTER_CONFIGURATION:
            raise unreadable(uri, f"is larger than {LARGEST_ADAPTER_CONFIGURATION} bytes")
        raw = json.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(uri, f"is no JSON ({quoted(first_line(error))})") from error
    if not isinstance(raw, dict):
        raise unreadable(uri, "is no JSON object")
    return raw


def require_ranks(configuration: LoraConfig, uri: str) -> None:
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(getattr(configuration, key), dict):
            raise unreadable(uri, f"has a {key} that is no object")
    for rank in (configuration.r, *configuration.rank_pattern.values()):
        if type(rank) is not int or not 0 < rank <= LARGEST_RANK:
            raise unreadable(
                uri,
                f"has rank {quoted(rank)} in r or rank_pattern, which is no whole number from 1 to "
                f"{LARGEST_RANK}",
            )


def described_numbers(model: PreTrainedModel, configuration: LoraConfig, uri: str) -> int:
    """How many numbers PEFT would make of the configuration, by its own rules."""
    late = unusable(
        f"the patterns of {ADAPTER_CONFIG} of {uri} take more than {LONGEST_MATCHING_SECONDS:.0f} "
        "s to compare with the names of all modules",
        "write names of modules in target_modules, rank_pattern and alpha_pattern, and no regular "
        "expressions that try every way",
    )
    try:
        with in_time(LONGEST_MATCHING_SECONDS, late):
            return sum(numbers_of_pairs(model, configuration))
    except TrainerError:
        raise
    except Exception as error:
        # Not regular expressions, or not even text.
        if is_out_of_memory(error):
            raise
        raise unreadable(
            uri, f"has patterns that no name can be compared with ({quoted(first_line(error))})"
        ) from error


def numbers_of_pairs(model: PreTrainedModel, configuration: LoraConfig) -> Iterator[int]:
    from peft.tuners.tuners_utils import (
        _maybe_include_all_linear_layers,
        check_target_module_exists,
    )

    # "all-linear" is no regular expression.
    _maybe_include_all_linear_layers(configuration, model)
    for name, module in model.named_modules():
        if check_target_module_exists(configuration, name):
            yield rank_of(name, configuration) * sum(sides_of(module))
    for target in configuration.target_parameters or ():
        for name, parameter in model.named_parameters():
            if f".{name}".endswith(f".{target}"):
                # Of experts in one tensor, each has a pair.
                *experts, one, other = parameter.shape
                yield rank_of(name, configuration) * math.prod(experts) * (one + other)


def rank_of(name: str, configuration: LoraConfig) -> int:
    from peft.utils.other import get_pattern_key

    # What the other pattern says takes no memory, but it must have an end, too.
    get_pattern_key(configuration.alpha_pattern, name)
    key = get_pattern_key(configuration.rank_pattern, name)
    return int(configuration.rank_pattern.get(key, configuration.r))


def sides_of(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a layer, as its kind calls them. None of what PEFT will refuse."""
    for one, other in (
        ("in_features", "out_features"),
        ("num_embeddings", "embedding_dim"),
        ("nx", "nf"),
    ):
        if hasattr(module, one) and hasattr(module, other):
            return int(getattr(module, one)), int(getattr(module, other))
    return 0, 0


def unreadable(uri: str, what: str) -> TrainerError:
    return unusable(f"{ADAPTER_CONFIG} of {uri} {what}", "write it with PEFT's save_pretrained()")


def unusable(what: str, instead: str) -> TrainerError:
    return TrainerError(Reason.MODEL_UNUSABLE, f"{what}: {instead}")
