"""Texts as runs of words, in arrays: what duplicates and leaks are found with.

Words are compared without case, punctuation and Unicode variants (NFKC). In scripts that are
written without spaces each character is a word. A word is a 64-bit hash of its letters, a gram a
hash of its words in their order: the same in every process and for every order of the texts. Two
different grams of a million have the same hash with a probability of 3e-8.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import regex

#: Letters, marks and digits in a row, or one character of a script without spaces.
WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|[\p{L}\p{M}\p{N}]+"
)
#: The same for ASCII, several times as fast: all else becomes a space.
ASCII_WORDS = bytes(code if chr(code).isalnum() and code < 128 else 32 for code in range(256))
#: Odd, and without pattern: 2^64 divided by the golden ratio.
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

#: An array of unsigned 64-bit hashes.
Hashes = Any


def words(text: str) -> list[bytes]:
    """The words of a text, as they are compared. A text without any is one word itself."""
    if text.isascii():
        found = text.lower().encode("ascii").translate(ASCII_WORDS).split()
    else:
        found = [
            word.encode() for word in WORD.findall(unicodedata.normalize("NFKC", text).lower())
        ]
    return found or [text.strip().encode()]


class WordHashes(dict[bytes, int]):
    """The hash of each word, computed when it is first seen."""

    def __missing__(self, word: bytes) -> int:
        value = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
        self[word] = value
        return value


@dataclass(frozen=True)
class Ragged:
    """Hashes of many texts one after the other; text i has values[offsets[i]:offsets[i + 1]]."""

    values: Hashes
    offsets: Any

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Hashes:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @cached_property
    def owners(self) -> Any:
        """For each value the number of its text."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def where(self, kept: Any) -> Ragged:
        """Only the values that a mask keeps."""
        totals = np.concatenate([[0], np.cumsum(kept)])
        return Ragged(self.values[kept], totals[self.offsets])

    def grouped(self, groups: Sequence[int]) -> Ragged:
        """Neighbouring texts as one: as many as each group says."""
        return Ragged(self.values, self.offsets[np.concatenate([[0], np.cumsum(groups)])])


def hashed_words(texts: Iterable[str], hashes: WordHashes) -> Ragged:
    lengths: list[int] = []

    def all_words() -> Iterator[list[bytes]]:
        for text in texts:
            found = words(text)
            lengths.append(len(found))
            yield found

    values = np.fromiter(map(hashes.__getitem__, chain.from_iterable(all_words())), dtype=np.uint64)
    return Ragged(values, np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]))


def grams(of: Ragged, size: int, *, least: int = 1) -> Ragged:
    """The runs of ``size`` words of each text. One with fewer words is a single run, or none.

    ``least`` is 1 or 0: how many a short text has.
    """
    lengths = np.diff(of.offsets)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths - size + 1, least))])
    following = np.concatenate([of.values, np.zeros(size, dtype=np.uint64)])
    total = of.values.copy()
    for place in range(1, size):
        total *= MULTIPLIER
        total += following[place : place + len(total)]
    complete = np.arange(size, len(total) + size) <= np.repeat(of.offsets[1:], lengths)
    for text in np.flatnonzero(lengths < size) if least else ():
        first = of.offsets[text]
        complete[first] = True
        total[first] = run(of[text], size)
    return Ragged(total[complete], offsets)


def run(values: Hashes, size: int) -> int:
    """One hash of fewer words than ``size``, which no whole run is likely to have."""
    total = 0
    for value in [*values.tolist(), *[0] * (size - len(values))]:
        total = (total * int(MULTIPLIER) + value) % 2**64
    return total


def fingerprints(of: Ragged) -> Hashes:
    """One hash of all words of each text, in their order. No text may be without words."""
    places = (np.arange(len(of.values)) - of.offsets[:-1][of.owners]).astype(np.uint64)
    mixed = (of.values ^ (places * MULTIPLIER)) * MULTIPLIER
    mixed ^= mixed >> np.uint64(29)
    return np.add.reduceat(mixed * MULTIPLIER, of.offsets[:-1]) if len(of) else mixed


def frequent(of: Ragged, limit: float) -> Hashes:
    """The grams that more than ``limit`` texts have, sorted.

    Counted roughly first, in a table of a fixed size that many grams share: what stays below the
    limit there is rare, and only the rest is counted one by one.
    """
    buckets = of.values & np.uint64(2**22 - 1)
    heavy = np.bincount(buckets.view(np.int64), minlength=2**22)[buckets.view(np.int64)] > limit
    # A text that has a gram twice counts once.
    values, _ = distinct(of.values[heavy], of.owners[heavy])
    values, counts = np.unique(values, return_counts=True)
    return values[counts > limit]


def distinct(values: Hashes, owners: Any) -> tuple[Hashes, Any]:
    """Pairs of value and owner, each once, sorted by value and then by owner."""
    order = np.lexsort((owners, values))
    values, owners = values[order], owners[order]
    new = np.ones(len(values), dtype=bool)
    new[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
    return values[new], owners[new]


def is_in(values: Hashes, members: Hashes) -> Any:
    """Which values are members; these must be sorted."""
    if not len(members):
        return np.zeros(len(values), dtype=bool)
    return members[np.minimum(np.searchsorted(members, values), len(members) - 1)] == values
