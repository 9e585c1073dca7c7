"""Rows that say nearly the same as another row.

Candidates come from MinHash with locality-sensitive hashing, and each is verified by its exact
Jaccard similarity. 256 hash functions in 32 bands of 8 find a pair with a similarity of 0.8 with a
probability of 1 - (1 - 0.8^8)^32 = 99.7%; the usual setting for a threshold of 0.8 balances that
against false candidates, which verification makes harmless, and finds 83% (Leskovec, Rajaraman,
Ullman: Mining of Massive Datasets, 3.4; measured by ``make bench-data``).

Near-duplicates of near-duplicates are one group. Of a group the row with the lowest digest stays:
that depends on nothing but the rows themselves, so that neither the order of a file nor a second
run makes other training data. Texts must come in that order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import rensa

from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.data.word_grams import (
    MULTIPLIER,
    Ragged,
    WordHashes,
    frequent,
    grams,
    hashed_words,
    is_in,
)

SHINGLE_WORDS = 3
PERMUTATIONS = 256
#: Of a pair at the very bar, the probability that it is a candidate.
RECALL = 0.99
SEED = 1
#: So many texts are hashed at a time: more are slower, as Python's lists leave the cache.
ROWS_AT_ONCE = 64
#: Texts in one bucket are compared with so many that follow, not with all: the time stays linear
#: where a template is shared. Groups larger than this hold together through their neighbours.
WINDOW = 128
#: An estimate from 256 hashes that is so many standard errors below the bar is not looked into.
STANDARD_ERRORS = 3.0
#: A shingle that more rows than this have is the task's template, and says nothing about a row.
TEMPLATE_SHARE = 0.05
TEMPLATE_ROWS = 10


def near_duplicate_rows(rows: Sequence[Conversation], similarity: float) -> list[int]:
    """The rows to drop, by number; ``rows`` in the order of their digests.

    All messages are compared, without the shingles that more than a twentieth of the rows have:
    system prompts, worked examples and instructions make all rows of a task alike, and say nothing
    about one. The answers have to be as similar as the whole: the same passage with another
    question is a new example.
    """
    hashes = WordHashes()
    messages = hashed_words((message.content for row in rows for message in row.messages), hashes)
    whole = grams(messages, SHINGLE_WORDS).grouped([len(row.messages) for row in rows])
    template = frequent(whole, max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(rows)))
    answers = grams(hashed_words((row.answer for row in rows), hashes), SHINGLE_WORDS)
    return near_duplicates(whole.where(~is_in(whole.values, template)), similarity, answers)


def near_duplicates(shingles: Ragged, similarity: float, also: Ragged | None = None) -> list[int]:
    """Numbers of the texts that are near-duplicates of one with a lower number, sorted.

    Texts without shingles are like no other. Where ``also`` is given, the texts have to be similar
    in it, too. Memory: 8 bytes a shingle and about 1.5 KiB a text; time grows with their number,
    not with its square.
    """
    groups = Groups(len(shingles))
    signatures = minhash(shingles)
    present = np.diff(shingles.offsets) > 0
    lowest = similarity - STANDARD_ERRORS * math.sqrt(similarity * (1 - similarity) / PERMUTATIONS)
    same = verifier([shingles] if also is None else [shingles, also], similarity)
    bands = bands_for(similarity)
    for first, second in candidates(signatures, present, bands):
        apart = groups.apart(first, second)
        first, second = first[apart], second[apart]
        alike = estimate(signatures, first, second) >= lowest
        pairs = zip(first[alike].tolist(), second[alike].tolist(), strict=True)
        groups.join([(one, other) for one, other in pairs if same(one, other)])
    return groups.followers()


def minhash(shingles: Ragged) -> Any:
    """A signature of each text: its share of equal values estimates the Jaccard similarity."""
    offsets = shingles.offsets.astype(np.uint64)
    signatures = np.empty((len(shingles), PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(shingles), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(shingles))
        within = offsets[start : stop + 1]
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.values[int(within[0]) : int(within[-1])],
            within - within[0],
            PERMUTATIONS,
            SEED,
        )
        signatures[start:stop] = matrix.to_rows()
    return signatures


def bands_for(similarity: float) -> int:
    """The fewest bands that find a pair of this similarity: 32 for 0.8, 128 for 0.5."""
    for width in (32, 16, 8, 4):
        bands = PERMUTATIONS // width
        if 1 - (1 - similarity**width) ** bands >= RECALL:
            return bands
    return PERMUTATIONS // 2


def candidates(signatures: Any, present: Any, bands: int) -> Iterator[tuple[Any, Any]]:
    """Pairs of texts that share a band of their signatures: arrays of first and second numbers.

    Band by band, and in each bucket neighbours first. Sorting by the next band, too, makes similar
    texts of a large bucket neighbours.
    """
    keys = band_keys(signatures, bands)
    members = np.flatnonzero(present)
    for band in range(bands):
        key, following = keys[members, band], keys[members, (band + 1) % bands]
        order = np.lexsort((members, following, key))
        key, texts = key[order], members[order]
        pairs = np.arange(len(texts))
        for distance in range(1, WINDOW + 1):
            pairs = pairs[pairs + distance < len(texts)]
            pairs = pairs[key[pairs] == key[pairs + distance]]
            if not len(pairs):
                break
            yield texts[pairs], texts[pairs + distance]


def band_keys(signatures: Any, bands: int) -> Any:
    """One 64-bit number for each text and band. A chance equality costs a comparison, no more."""
    pairs = signatures.view(np.uint64).reshape(len(signatures), bands, -1)
    keys = np.zeros((len(signatures), bands), dtype=np.uint64)
    for place in range(pairs.shape[2]):
        keys = (keys ^ pairs[:, :, place]) * MULTIPLIER
        keys ^= keys >> np.uint64(29)
    return keys


def estimate(signatures: Any, first: Any, second: Any, at_once: int = 65536) -> Any:
    """The similarity of each pair, from the signatures: 0 to 1."""
    parts = [np.zeros(0)]
    for start in range(0, len(first), at_once):
        part = slice(start, start + at_once)
        parts.append((signatures[first[part]] == signatures[second[part]]).mean(axis=1))
    return np.concatenate(parts)


def verifier(parts: Sequence[Ragged], similarity: float) -> Any:
    """A function that says of two texts whether all their parts are so similar, exactly."""

    @lru_cache(maxsize=8192)
    def sets(text: int) -> list[frozenset[int]]:
        return [frozenset(part[text].tolist()) for part in parts]

    # A pair that shares several bands comes back as often.
    @lru_cache(maxsize=65536)
    def same(one: int, other: int) -> bool:
        return all(
            jaccard(first, second) >= similarity
            for first, second in zip(sets(one), sets(other), strict=True)
        )

    return same


def jaccard(first: frozenset[Any], second: frozenset[Any]) -> float:
    """Shared members over all members."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


class Groups:
    """Connected components of texts: each text knows the lowest number of its group."""

    def __init__(self, count: int) -> None:
        self.lowest = np.arange(count)

    def apart(self, first: Any, second: Any) -> Any:
        return self.lowest[first] != self.lowest[second]

    def join(self, pairs: Sequence[tuple[int, int]]) -> None:
        for one, other in pairs:
            low, high = sorted((self._find(one), self._find(other)))
            self.lowest[high] = low
        if pairs:
            while not np.array_equal(nearer := self.lowest[self.lowest], self.lowest):
                self.lowest = nearer

    def _find(self, text: int) -> int:
        while (above := int(self.lowest[text])) != text:
            text = above
        return text

    def followers(self) -> list[int]:
        """All but the first text of each group."""
        numbers = np.flatnonzero(self.lowest != np.arange(len(self.lowest)))
        return [int(number) for number in numbers]
