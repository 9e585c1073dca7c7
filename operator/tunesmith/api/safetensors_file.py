"""Reads safetensors files without mapping or loading them.

A mapped file that somebody shortens kills the process that looks at it, and a loaded one may not
fit. So the header is read and judged here, and the weights in blocks. By the sidecar and by the
trainer alike: the files of strangers are the same.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tunesmith.api.quoting import quoted

#: What the format allows.
LARGEST_HEADER_BYTES = 100_000_000
MOST_TENSORS = 200_000
#: Commas and opening brackets: eight per tensor. More make more objects than a header needs.
MOST_MARKS = 10 * MOST_TENSORS
MOST_DIMENSIONS = 8
LARGEST_DIMENSION = 2**48
LENGTH = struct.Struct("<Q")
BLOCK_BYTES = 4 * 1024 * 1024
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


class SafetensorsError(Exception):
    """The message is a clause about the file: 'is cut short: ...'."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the header. ``start`` and ``end`` count from the beginning of the file."""

    name: str
    data_type: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def stored_bits(self) -> int:
        return 8 * (self.end - self.start)

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def read_tensors(path: Path, largest_header: int = LARGEST_HEADER_BYTES) -> list[Tensor]:
    """The tensors of a file in the order they lie in it. Raises SafetensorsError, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = read_header(file, size, largest_header)
    data_start = LENGTH.size + len(header)
    entries = parse_header(header)
    entries.pop("__metadata__", None)
    if len(entries) > MOST_TENSORS:
        raise SafetensorsError(f"has {len(entries)} tensors, more than {MOST_TENSORS}")
    tensors = [parse_tensor(name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    require_without_gaps(tensors, data_start, size)
    return tensors


def read_header(file: BinaryIO, size: int, largest: int) -> bytes:
    start = file.read(LENGTH.size)
    if len(start) < LENGTH.size:
        raise SafetensorsError(f"is no safetensors file: it has only {len(start)} bytes")
    (length,) = LENGTH.unpack(start)
    if length < 2 or length > largest:
        raise SafetensorsError(
            f"is no safetensors file: its header would have {length} bytes, not 2 to {largest}"
        )
    if length > size - LENGTH.size:
        raise SafetensorsError(
            f"is cut short: its header has {length} bytes, but only {size - LENGTH.size} follow"
        )
    header = file.read(length)
    if len(header) < length:
        raise SafetensorsError("is cut short: it ended while its header was being read")
    return header


def parse_header(header: bytes) -> dict[str, object]:
    if sum(header.count(mark) for mark in (b"{", b"[", b",")) > MOST_MARKS:
        raise SafetensorsError(f"has a header of more parts than {MOST_TENSORS} tensors need")
    try:
        entries = json.loads(header.decode(), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"has a corrupt header ({quoted(str(error))})") from error
    if not isinstance(entries, dict):
        raise SafetensorsError("has a corrupt header (no JSON object)")
    return entries


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name is in it twice")
    return entries


def parse_tensor(name: str, entry: object, data_start: int) -> Tensor:
    match entry:
        case {"dtype": str(data_type), "shape": list(shape), "data_offsets": [start, end]}:
            numbers = [*shape, start, end]
        case _:
            raise SafetensorsError(f"has no type, shape and place for tensor {quoted(name)}")
    if len(shape) > MOST_DIMENSIONS or not all(
        type(each) is int and 0 <= each <= LARGEST_DIMENSION for each in numbers
    ):
        raise SafetensorsError(f"has no sensible shape and place for tensor {quoted(name)}")
    bits = BITS.get(data_type)
    if bits is not None and bits * math.prod(shape) != 8 * (end - start):
        raise SafetensorsError(
            f"gives tensor {quoted(name)} {end - start} bytes, which do not fit its shape {shape} "
            f"of {data_type}"
        )
    return Tensor(name, data_type, tuple(shape), data_start + start, data_start + end)


def require_without_gaps(tensors: list[Tensor], data_start: int, size: int) -> None:
    """The tensors must cover the file exactly, as the format demands."""
    position = data_start
    for tensor in tensors:
        if tensor.start != position or tensor.end < tensor.start:
            raise SafetensorsError(
                f"has tensor {quoted(tensor.name)} at byte {tensor.start}, where byte {position} "
                "comes next: tensors overlap or leave gaps"
            )
        position = tensor.end
    if position > size:
        raise SafetensorsError(f"is cut short: it has {size} of {position} bytes")
    if position < size:
        raise SafetensorsError(f"has {size - position} bytes after its last tensor")


def blocks(file: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes, a few megabytes at a time, cut between numbers.

    Raises SafetensorsError if the file has become shorter.
    """
    file.seek(tensor.start)
    left = tensor.end - tensor.start
    while left:
        block = file.read(min(left, BLOCK_BYTES))
        if len(block) < min(left, BLOCK_BYTES):
            raise SafetensorsError(f"ended within tensor {quoted(tensor.name)}")
        left -= len(block)
        yield block
