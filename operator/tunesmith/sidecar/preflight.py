"""Judges an adapter's files before vLLM sees them.

vLLM answers 200 to weights of a wrong shape, of another rank or full of NaN, and serves garbage
from then on; on CPUs one NaN spoils every model of the server. And an adapter that it does refuse
at start takes the whole server down. Files come from strangers: every step is bounded in memory,
and in time by the size of the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy

from tunesmith.api.digests import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest
from tunesmith.api.file_bounds import (
    LARGEST_ADAPTER_CONFIGURATION,
    LARGEST_ADAPTER_HEADER,
    LARGEST_ADAPTER_WEIGHTS,
)
from tunesmith.api.quoting import quoted
from tunesmith.api.reasons import RefusalReason
from tunesmith.api.safetensors_file import (
    SafetensorsError,
    Tensor,
    blocks,
    read_tensors,
)
from tunesmith.sidecar.adapter_configuration import (
    dora,
    read_configuration,
    require_rank,
    require_servable,
    too_large,
)
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.refusal import Refused

__all__ = ["Expected", "Facts", "RefusalReason", "Refused", "examine"]

#: These can run programs when they are loaded.
PICKLE_SUFFIXES = {".bin", ".pt", ".pth"}
LONGEST_NAME = 256
NAME_PREFIX = "base_model.model."
FIRST_HALF = ".lora_A.weight"
SECOND_HALF = ".lora_B.weight"


@dataclass(frozen=True)
class Expected:
    """An adapter as desired: where, with which digest, and the folder it must not leave."""

    path: Path
    digest: str
    root: Path


@dataclass(frozen=True)
class Facts:
    """What is known of an adapter that passed. ``bytes`` and ``tensors`` are of its weights."""

    rank: int
    bytes: int
    tensors: int
    #: Whether every pair was compared with its layer of the base model.
    shapes_checked: bool


@dataclass(frozen=True)
class NumberFormat:
    """How to find numbers that are too large, NaN or infinite, by their bits.

    Without the sign, the bits of floating point numbers are in the order of the numbers, followed
    by infinity and NaN.
    """

    unsigned: str
    magnitude: int
    #: The largest number that 16 bits can hold (65504). vLLM computes in 16 bits, and infinity
    #: is as bad as NaN. Trained weights are smaller than one.
    largest: int


FORMATS = {
    "F32": NumberFormat("<u4", 0x7FFFFFFF, 0x477FE000),
    "F16": NumberFormat("<u2", 0x7FFF, 0x7BFF),
    "BF16": NumberFormat("<u2", 0x7FFF, 0x477F),
}


def examine(adapter: Expected, base: BaseModel | None, max_lora_rank: int) -> Facts:
    """Raises Refused. Without ``base``, whether shapes fit it remains unknown."""
    folder = place(adapter)
    # Before the digest: files that are not what they seem may be terabytes of nothing.
    tensors = weights(folder)
    require_digest(folder, adapter.digest)
    configuration = read_configuration(folder)
    require_servable(configuration)
    require_rank(configuration, max_lora_rank)
    pairs = paired(tensors)
    ranks = configuration.ranks_of(pairs)
    for module, pair in pairs.items():
        pair.require_rank(ranks[module])
    checked = [base is not None and shape_checked(pair, base) for pair in pairs.values()]
    require_finite(folder / ADAPTER_WEIGHTS, tensors)
    return Facts(
        rank=configuration.largest_rank,
        bytes=tensors[-1].end,
        tensors=len(tensors),
        shapes_checked=all(checked),
    )


def place(adapter: Expected) -> Path:
    """The adapter's folder, once it is certain that it lies where it must."""
    try:
        root = adapter.root.resolve()
        folder = resolved(adapter.path, root)
        if not folder.is_dir():
            raise Refused(RefusalReason.NOT_FOUND, f"{adapter.path} is no folder")
        require_files(folder, root)
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a zero byte. RuntimeError: links in a circle.
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(
            RefusalReason.NOT_FOUND,
            f"{quoted(str(adapter.path))} cannot be read ({reason}): was the adapter moved or "
            "deleted, or closed to user 65532?",
        ) from error
    return folder


def resolved(path: Path, root: Path) -> Path:
    """The path without links. Raises Refused if it is not there or not below ``root``."""
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise Refused(
            RefusalReason.NOT_FOUND, f"there is no {path}: was the adapter moved or deleted?"
        ) from error
    if not target.is_relative_to(root):
        raise Refused(
            RefusalReason.OUTSIDE_ITS_VOLUME,
            f"{path} leads to {target}, outside {root}: copy the adapter into its volume",
        )
    return target


def require_files(folder: Path, root: Path) -> None:
    configuration, weights_file = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    if not weights_file.exists():
        require_no_pickles(folder)
    for path in (configuration, weights_file):
        # A pipe would keep whoever opens it waiting for ever.
        if not resolved(path, root).is_file():
            raise Refused(RefusalReason.NOT_FOUND, f"{path} is no file")
    if configuration.stat().st_size > LARGEST_ADAPTER_CONFIGURATION:
        raise too_large()


def require_no_pickles(folder: Path) -> None:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise Refused(
            RefusalReason.NOT_SAFETENSORS,
            f"{folder} has its weights in {quoted(pickles[0])}, a format that can carry programs: "
            f"save them as {ADAPTER_WEIGHTS} (PEFT's save_pretrained, safe_serialization=True)",
        )


def weights_unreadable(problem: Exception) -> Refused:
    what = str(problem)
    if isinstance(problem, OSError):
        what = f"cannot be read: {problem.strerror or problem}"
    return Refused(
        RefusalReason.WEIGHTS_UNREADABLE,
        f"{ADAPTER_WEIGHTS} {what}; copy the adapter again from where it was trained",
    )


def weights(folder: Path) -> list[Tensor]:
    """The tensors of an adapter by their header alone."""
    path = folder / ADAPTER_WEIGHTS
    try:
        tensors = read_tensors(path, LARGEST_ADAPTER_HEADER)
    except (OSError, SafetensorsError) as error:
        raise weights_unreadable(error) from error
    if not tensors:
        raise Refused(
            RefusalReason.NO_WEIGHTS,
            f"{ADAPTER_WEIGHTS} has no tensors: was the adapter saved before it was trained?",
        )
    if tensors[-1].end > LARGEST_ADAPTER_WEIGHTS:
        raise Refused(
            RefusalReason.WEIGHTS_UNREADABLE,
            f"{ADAPTER_WEIGHTS} has {tensors[-1].end} bytes, more than the "
            f"{LARGEST_ADAPTER_WEIGHTS} of any LoRA adapter: is it a whole model?",
        )
    return tensors


def require_digest(folder: Path, digest: str) -> None:
    try:
        found = adapter_digest(folder)
    except OSError as error:
        raise weights_unreadable(error) from error
    if found != digest:
        raise Refused(
            RefusalReason.DIGEST_MISMATCH,
            f"{folder} has digest {found}, not {digest}: its files were changed after they were "
            "named; deploy the new digest, or put the files back",
        )


@dataclass(frozen=True)
class Pair:
    """Both halves of what is added to one module: B (out, rank) times A (rank, in)."""

    module: str
    first: Tensor
    second: Tensor

    def require_rank(self, rank: int) -> None:
        for tensor, axis in ((self.first, 0), (self.second, 1)):
            if len(tensor.shape) != 2:
                raise Refused(
                    RefusalReason.WRONG_SHAPE,
                    f"tensor {quoted(tensor.name)} of {ADAPTER_WEIGHTS} has shape "
                    f"{list(tensor.shape)}, which is not that of a matrix",
                )
            if tensor.shape[axis] != rank:
                raise Refused(
                    RefusalReason.RANK_MISMATCH,
                    f"tensor {quoted(tensor.name)} of {ADAPTER_WEIGHTS} has rank "
                    f"{tensor.shape[axis]}, but {ADAPTER_CONFIG} gives its module rank {rank}: "
                    "r and rank_pattern must be those of the training",
                )


def paired(tensors: Iterable[Tensor]) -> dict[str, Pair]:
    """The pairs by module, as the tensors' names tell."""
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for tensor in tensors:
        require_known(tensor)
        if tensor.name.endswith(FIRST_HALF):
            first[module_of(tensor.name, FIRST_HALF)] = tensor
        else:
            second[module_of(tensor.name, SECOND_HALF)] = tensor
    require_whole(first, second)
    return {module: Pair(module, first[module], second[module]) for module in first}


def module_of(name: str, half: str) -> str:
    return name.removeprefix(NAME_PREFIX).removesuffix(half)


def require_known(tensor: Tensor) -> None:
    name = quoted(tensor.name)
    if "lora_magnitude_vector" in tensor.name.split("."):
        raise dora()
    if tensor.name.endswith(".lora_B.bias"):
        raise Refused(
            RefusalReason.BIAS_NOT_SERVABLE,
            f"{ADAPTER_WEIGHTS} has the bias {name}: vLLM serves none; train with lora_bias off",
        )
    if (
        not tensor.name.startswith(NAME_PREFIX)
        or not tensor.name.endswith((FIRST_HALF, SECOND_HALF))
        or len(tensor.name) > LONGEST_NAME
    ):
        raise Refused(
            RefusalReason.UNKNOWN_MODULE,
            f"{ADAPTER_WEIGHTS} has a tensor {name}, where only {NAME_PREFIX}MODULE{FIRST_HALF} "
            f"and {NAME_PREFIX}MODULE{SECOND_HALF} are served: save it with PEFT's save_pretrained "
            "(save_embedding_layers=False), and train linear layers only",
        )
    if tensor.data_type not in FORMATS:
        raise Refused(
            RefusalReason.WRONG_DATA_TYPE,
            f"tensor {name} of {ADAPTER_WEIGHTS} has type {quoted(tensor.data_type)}: save the "
            f"adapter as one of {', '.join(FORMATS)}",
        )


def require_whole(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    for one, other, half in ((first, second, "lora_B"), (second, first, "lora_A")):
        for module in one:
            if module not in other:
                raise Refused(
                    RefusalReason.HALF_PAIR,
                    f"module {quoted(module)} of {ADAPTER_WEIGHTS} has no {half}: save the adapter "
                    "again; on several devices, gather its parts first",
                )


def shape_checked(pair: Pair, base: BaseModel) -> bool:
    """Whether the pair could be compared with the base model. Raises Refused if it does not fit."""
    shape = base.shape_of(pair.module)
    if shape is None:
        if base.has(pair.module):
            return False
        raise Refused(
            RefusalReason.UNKNOWN_MODULE,
            f"{ADAPTER_WEIGHTS} is about module {quoted(pair.module)}, and the base model has no "
            "such linear layer: deploy the adapter on the base model that it was trained on",
        )
    out_features, in_features = shape
    for tensor, axis, expected in ((pair.first, 1, in_features), (pair.second, 0, out_features)):
        if tensor.shape[axis] != expected:
            raise Refused(
                RefusalReason.WRONG_SHAPE,
                f"tensor {quoted(tensor.name)} of {ADAPTER_WEIGHTS} has shape "
                f"{list(tensor.shape)}, but its layer of the base model is {out_features} x "
                f"{in_features} (out x in): deploy the adapter on the base model that it was "
                "trained on",
            )
    return True


def require_finite(path: Path, tensors: Iterable[Tensor]) -> None:
    try:
        with path.open("rb") as file:
            for tensor in tensors:
                number_format = FORMATS[tensor.data_type]
                if any(not_finite(block, number_format) for block in blocks(file, tensor)):
                    raise Refused(
                        RefusalReason.NOT_FINITE,
                        f"tensor {quoted(tensor.name)} of {ADAPTER_WEIGHTS} has values that are "
                        "NaN, infinite, or infinite in 16 bits: the training diverged; train again "
                        "with a lower learning rate",
                    )
    except (OSError, SafetensorsError) as error:
        raise weights_unreadable(error) from error


def not_finite(block: bytes, number_format: NumberFormat) -> bool:
    bits = numpy.frombuffer(block, dtype=number_format.unsigned)
    return bool(((bits & number_format.magnitude) > number_format.largest).any())
