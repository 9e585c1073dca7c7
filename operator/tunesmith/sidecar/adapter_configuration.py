"""adapter_config.json: what it may say, and which rank it gives each module."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunesmith.api.digests import ADAPTER_CONFIG
from tunesmith.api.file_bounds import LARGEST_ADAPTER_CONFIGURATION
from tunesmith.api.quoting import quoted
from tunesmith.api.reasons import RefusalReason
from tunesmith.sidecar.refusal import Refused

#: These leave the base model's weights alone. Others subtract from them, and vLLM would not.
HARMLESS_INITIALISATIONS = {"gaussian", "eva", "orthogonal", "mica"}
#: PEFT features that change what an adapter computes and that vLLM refuses or, worse, ignores.
FOREIGN_LAYOUTS = (
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "target_parameters",
    "trainable_token_indices",
    "megatron_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
#: Keys of rank_pattern and alpha_pattern are regular expressions, which vLLM's engine matches
#: against every module: one that backtracks forever would stop the server. These cannot.
HARMLESS_KEY = re.compile(
    r"\^?(?:[\w-]|\\\.|\\d\+?|\[0-9\]\+?|\.\*|\.|\((?:\?:)?[\w|-]+\))+\$?", re.ASCII
)
LONGEST_KEY = 256
MOST_LOOPS = 2
#: Matching every module against every key, here and once more in vLLM.
LONGEST_MATCHING_SECONDS = 10.0

Rank = Annotated[int, Field(gt=0, le=1_000_000)]
#: Far beyond what anybody trains with; a larger one would make the product infinite.
Scale = Annotated[float, Field(ge=-65504, le=65504, allow_inf_nan=False)]


class Configuration(BaseModel):
    """The part of adapter_config.json that decides whether vLLM computes what was trained."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: str
    r: Rank
    lora_alpha: Scale
    target_modules: list[str] | str | None
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Scale] | None = None
    bias: str = "none"
    lora_bias: bool | None = None
    use_dora: bool | None = None
    use_rslora: bool | None = None
    init_lora_weights: bool | str | None = None
    modules_to_save: list[str] | str | None = None

    @property
    def largest_rank(self) -> int:
        return max(self.r, *(self.rank_pattern or {"": 0}).values())

    def ranks_of(self, modules: Iterable[str]) -> dict[str, int]:
        """The rank of each module, by PEFT's rule: the first key that fits the end of its name."""
        patterns = self.rank_pattern or {}
        keys = [(re.compile(rf"(.*\.)?({key})$"), rank) for key, rank in patterns.items()]
        deadline = time.monotonic() + LONGEST_MATCHING_SECONDS
        ranks: dict[str, int] = {}
        for module in modules:
            ranks[module] = next((rank for key, rank in keys if key.match(module)), self.r)
            if time.monotonic() > deadline:
                raise Refused(
                    RefusalReason.LAYOUT_NOT_SERVABLE,
                    f"the {len(keys)} keys of rank_pattern in {ADAPTER_CONFIG} take longer "
                    "than 10 seconds to compare with the names of all modules, and vLLM would "
                    "stand still meanwhile: write fewer and plainer keys",
                )
        return ranks


def read_configuration(folder: Path) -> Configuration:
    """Raises Refused."""
    raw = read_object(folder / ADAPTER_CONFIG)
    kind = raw.get("peft_type")
    if isinstance(kind, str) and kind.upper() != "LORA":
        # Before the keys are checked: other kinds lack some of LoRA's.
        raise Refused(
            RefusalReason.NOT_LORA,
            f"{ADAPTER_CONFIG} has peft_type {quoted(kind)}: only LORA adapters can be served",
        )
    try:
        return Configuration.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise unreadable(f"has a wrong {quoted(where)}: {first['msg']}") from error


def read_object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_ADAPTER_CONFIGURATION + 1)
    except OSError as error:
        raise unreadable(f"cannot be read: {error.strerror or error}") from error
    if len(text) > LARGEST_ADAPTER_CONFIGURATION:
        raise too_large()
    try:
        # As vLLM and PEFT read it: from bytes, json would take UTF-16 and a byte order mark, too.
        raw = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise unreadable(f"is no JSON: {quoted(str(error))}") from error
    if not isinstance(raw, dict):
        raise unreadable("is no JSON object")
    return raw


def unreadable(what: str) -> Refused:
    return Refused(
        RefusalReason.CONFIGURATION_UNREADABLE,
        f"{ADAPTER_CONFIG} {what}; write the folder with PEFT's save_pretrained",
    )


def too_large() -> Refused:
    return unreadable(f"is larger than {LARGEST_ADAPTER_CONFIGURATION} bytes")


def dora() -> Refused:
    return Refused(
        RefusalReason.DORA_NOT_SERVABLE,
        "this is a DoRA adapter, which vLLM cannot load beside its base model: set strategy: "
        "Merged, or train with use_dora off",
    )


def require_servable(configuration: Configuration) -> None:
    """Raises Refused for whatever vLLM refuses or would compute differently."""
    if configuration.use_dora:
        raise dora()
    if configuration.modules_to_save:
        raise Refused(
            RefusalReason.MODULES_TO_SAVE,
            f"{ADAPTER_CONFIG} has modules_to_save {quoted(configuration.modules_to_save)}: "
            "vLLM cannot replace whole modules; train with target_modules only, or merge the "
            "adapter into its base model",
        )
    if configuration.bias != "none" or configuration.lora_bias:
        raise Refused(
            RefusalReason.BIAS_NOT_SERVABLE,
            f"{ADAPTER_CONFIG} has bias {quoted(configuration.bias)} and lora_bias "
            f"{bool(configuration.lora_bias)}: vLLM serves no biases; train with bias none and "
            "lora_bias off, or merge the adapter into its base model",
        )
    require_known_initialisation(configuration.init_lora_weights)
    require_known_layout(configuration)


def require_known_initialisation(initialisation: bool | str | None) -> None:
    if not isinstance(initialisation, str) or initialisation.lower() in HARMLESS_INITIALISATIONS:
        return
    raise Refused(
        RefusalReason.INITIALISATION_NOT_SERVABLE,
        f"{ADAPTER_CONFIG} has init_lora_weights {quoted(initialisation)}, which changes the "
        "base model's weights too: save the adapter again with PEFT's "
        "path_initial_model_for_weight_conversion, which makes it a plain LoRA adapter",
    )


def require_known_layout(configuration: Configuration) -> None:
    extra = configuration.model_extra or {}
    for key in FOREIGN_LAYOUTS:
        if extra.get(key):
            raise Refused(
                RefusalReason.LAYOUT_NOT_SERVABLE,
                f"{ADAPTER_CONFIG} sets {key}, which vLLM does not apply: train without it, "
                "or merge the adapter into its base model",
            )
    require_harmless_keys("rank_pattern", configuration.rank_pattern or {})
    require_harmless_keys("alpha_pattern", configuration.alpha_pattern or {})


def require_harmless_keys(option: str, pattern: Mapping[str, object]) -> None:
    for key in pattern:
        loops = key.count("+") + key.count("*") + key.count("(")
        if len(key) > LONGEST_KEY or loops > MOST_LOOPS or not HARMLESS_KEY.fullmatch(key):
            raise Refused(
                RefusalReason.LAYOUT_NOT_SERVABLE,
                f"{option} in {ADAPTER_CONFIG} has the key {quoted(key)}, which could keep "
                "vLLM busy for ever: write names of modules, with at most two of .*, \\d+ and "
                "(one|other)",
            )


def require_rank(configuration: Configuration, max_lora_rank: int) -> None:
    rank = configuration.largest_rank
    if rank > max_lora_rank:
        raise Refused(
            RefusalReason.RANK_TOO_LARGE,
            f"{ADAPTER_CONFIG} has rank {rank} in r or rank_pattern, but the server is "
            f"prepared for {max_lora_rank} at most: set server.maxLoraRank to {rank} or more",
        )
