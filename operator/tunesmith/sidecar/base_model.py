"""What the base model's weights look like, from its configuration and the headers of its files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.digests import MODEL_CONFIG, weight_files
from tunesmith.api.file_bounds import LARGEST_MODEL_CONFIGURATION
from tunesmith.api.safetensors_file import SafetensorsError, Tensor, read_tensors

FLOATING_TYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
#: How quantised checkpoints name a layer's weights: bitsandbytes and plain, GPTQ and AWQ, the rest.
WEIGHT_SUFFIXES = (".weight", ".qweight", ".weight_packed")
#: bitsandbytes puts this beside four-bit weights, which it may store in tensors of any type.
FOUR_BIT_MARK = ".weight.absmax"
#: Bits per number in quantised checkpoints.
PACKED_BITS = (2, 3, 4, 8)
#: The parts of names in which checkpoints of models with more than text differ from their code.
WRAPPERS = {"model", "language_model"}

#: model-00001-of-00004.safetensors
PART_OF_SEVERAL = re.compile(r"(.*)-\d+-of-(\d+)\.safetensors")

Shape = tuple[int, int]


class BaseModelUnreadable(Exception):  # noqa: N818 - says what it is
    """The message is a sentence for the user."""


@dataclass(frozen=True)
class BaseModel:
    """Names and shapes of the layers that a LoRA pair can belong to."""

    shapes: Mapping[str, Shape]
    #: Quantised layers whose shape neither header nor configuration tells.
    shapeless: frozenset[str]
    #: The names above, by their names without WRAPPERS. Empty for models of text only.
    aliases: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> BaseModel:
        """Raises BaseModelUnreadable."""
        configuration = read_configuration(folder)
        text = text_configuration(configuration)
        whole, packed = sort_weights(read_all_tensors(folder))
        derived = {module: packed_shape(module, bits, text) for module, bits in packed.items()}
        shapes = whole | {module: shape for module, shape in derived.items() if shape is not None}
        shapeless = frozenset(module for module, shape in derived.items() if shape is None)
        add_tied_head(shapes, shapeless, configuration)
        wrapped = text is not configuration
        names = [*shapes, *shapeless] if wrapped else []
        return cls(shapes, shapeless, {without_wrappers(name): name for name in names})

    def shape_of(self, module: str) -> Shape | None:
        """(out_features, in_features); None without such a layer, or if ``has`` alone is known."""
        return self.shapes.get(self.name_of(module))

    def has(self, module: str) -> bool:
        name = self.name_of(module)
        return name in self.shapes or name in self.shapeless

    def name_of(self, module: str) -> str:
        """The checkpoint's name of a module."""
        if module in self.shapes or module in self.shapeless:
            return module
        return self.aliases.get(without_wrappers(module), module)


def read_configuration(folder: Path) -> dict[str, object]:
    path = folder / MODEL_CONFIG
    try:
        if not path.is_file():
            raise BaseModelUnreadable(f"there is no file {path}: is this a model's folder?")
        with path.open("rb") as file:
            text = file.read(LARGEST_MODEL_CONFIGURATION + 1)
        if len(text) > LARGEST_MODEL_CONFIGURATION:
            raise BaseModelUnreadable(f"{path} is larger than {LARGEST_MODEL_CONFIGURATION} bytes")
        configuration = json.loads(text)
    except OSError as error:
        raise BaseModelUnreadable(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BaseModelUnreadable(f"{path} is no JSON: {error}") from error
    if not isinstance(configuration, dict):
        raise BaseModelUnreadable(f"{path} is no JSON object")
    return configuration


def text_configuration(configuration: dict[str, object]) -> dict[str, object]:
    """Models that also see or hear keep what concerns text in a part of their configuration."""
    text = configuration.get("text_config")
    return text if isinstance(text, dict) else configuration


def read_all_tensors(folder: Path) -> Iterable[Tensor]:
    files = weight_files(folder)
    if not files:
        raise BaseModelUnreadable(f"there is no *.safetensors file in {folder}")
    require_all_parts(folder, files)
    for path in files:
        try:
            if not path.is_file():
                raise BaseModelUnreadable(f"{path} is no file")
            yield from read_tensors(path)
        except SafetensorsError as error:
            raise BaseModelUnreadable(f"{path} {error}") from error
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise BaseModelUnreadable(message) from error


def require_all_parts(folder: Path, files: Iterable[Path]) -> None:
    """While a model is being downloaded, its files appear one by one."""
    found = Counter(
        each.groups() for file in files if (each := PART_OF_SEVERAL.fullmatch(file.name))
    )
    for (stem, count), present in found.items():
        if present < int(count):
            raise BaseModelUnreadable(
                f"{folder} has only {present} of {count} files {stem}-*.safetensors: wait until "
                "the download is complete, or copy the model again"
            )


def sort_weights(tensors: Iterable[Tensor]) -> tuple[dict[str, Shape], dict[str, int]]:
    """The shapes of layers stored as they are, and the stored bits of the packed ones."""
    whole: dict[str, Shape] = {}
    packed: dict[str, int] = {}
    four_bit: list[str] = []
    for tensor in tensors:
        if tensor.name.endswith(FOUR_BIT_MARK):
            four_bit.append(tensor.name.removesuffix(FOUR_BIT_MARK))
        module, dot, last = tensor.name.rpartition(".")
        if len(tensor.shape) != 2 or dot + last not in WEIGHT_SUFFIXES:
            continue
        packed[module] = tensor.stored_bits
        if last == "weight" and tensor.data_type in FLOATING_TYPES:
            whole[module] = (tensor.shape[0], tensor.shape[1])
    for module in four_bit:
        whole.pop(module, None)
    return whole, {module: bits for module, bits in packed.items() if module not in whole}


def packed_shape(module: str, stored_bits: int, text: Mapping[str, object]) -> Shape | None:
    """The shape that the configuration gives a quantised layer, if its stored size agrees.

    Layers of experts and of some kinds of attention follow other rules; the size tells them apart.
    """
    shape = projection_shape(module.rpartition(".")[2], text)
    if shape is None or stored_bits not in [bits * shape[0] * shape[1] for bits in PACKED_BITS]:
        return None
    return shape


def projection_shape(projection: str, text: Mapping[str, object]) -> Shape | None:
    hidden = size(text, "hidden_size")
    intermediate = size(text, "intermediate_size")
    heads = size(text, "num_attention_heads")
    if not (hidden and intermediate and heads):
        return None
    head = size(text, "head_dim") or hidden // heads
    query = heads * head
    key_value = (size(text, "num_key_value_heads") or heads) * head
    return {
        "q_proj": (query, hidden),
        "k_proj": (key_value, hidden),
        "v_proj": (key_value, hidden),
        "o_proj": (hidden, query),
        "gate_proj": (intermediate, hidden),
        "up_proj": (intermediate, hidden),
        "down_proj": (hidden, intermediate),
    }.get(projection)


def size(configuration: Mapping[str, object], key: str) -> int | None:
    value = configuration.get(key)
    return value if type(value) is int and 0 < value < 2**31 else None


def add_tied_head(
    shapes: dict[str, Shape], shapeless: frozenset[str], configuration: Mapping[str, object]
) -> None:
    """Checkpoints leave lm_head out when it is the embedding."""
    if "lm_head" in shapes or "lm_head" in shapeless:
        return
    embeddings = [name for name in shapes if name.rpartition(".")[2] == "embed_tokens"]
    if embeddings and configuration.get("tie_word_embeddings", True):
        shapes["lm_head"] = shapes[embeddings[0]]


def without_wrappers(module: str) -> str:
    return ".".join(part for part in module.split(".") if part not in WRAPPERS)
