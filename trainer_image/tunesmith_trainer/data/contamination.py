"""Training rows that share text with what the model is judged by.

Only training rows are ever dropped. A row is contaminated by an evaluation item in one of three
ways, each on normalised words (see word_grams) and without system messages:

    Exact        the whole question is the item's question
    SharedGram   they share a run of 8 words, in question or answer
    Containment  at least half of the 3-grams of the item's question stand in the row

n-gram matching is how GPT-3 (arXiv:2005.14165, appendix C: 8 to 13 words, by dataset), Tülu 3
(arXiv:2411.15124, 3.2: 8-grams) and lm-evaluation-harness were decontaminated. On the 160 turns of
MT-Bench, pasted into longer examples, 8-grams alone find 96%, with containment 100%; the Jaccard
similarity of near-duplicates finds none. Paraphrases pass.

Chat data repeats itself, and what all rows have is the task, not a leak:

    * A 3-gram is template if more than one in a hundred training rows have it, or of the items of
      one evaluation set (but at least 10 rows). Template does not count for containment, and a run
      of 8 words counts only if most of its six 3-grams are not template.
    * A run of 8 words, or a question, that more than 10 training rows have does not count: GPT-3
      ignored what collided with more than 10 documents as boilerplate.
    * 3-grams that reach into template are left out, too, where enough others remain: a leaked
      question stands in other surroundings.
    * Of a question with fewer than 8 3-grams of its own all must stand in the row, or one common
      name would be half of it. With fewer than 3 it is found as a whole or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from tunesmith_trainer.data.formats import Conversation, Role
from tunesmith_trainer.data.word_grams import (
    Hashes,
    Ragged,
    WordHashes,
    distinct,
    fingerprints,
    frequent,
    grams,
    hashed_words,
    is_in,
)

RUN_WORDS = 8
SHORT_WORDS = 3
CONTAINED_SHARE = 0.5
TEMPLATE_SHARE = 0.01
BOILERPLATE_ROWS = 10
FEW_GRAMS = 8
LEAST_GRAMS = 3
#: So many training rows are looked at in one go, which bounds the memory.
ROWS_AT_ONCE = 4096


class Leak(StrEnum):
    """How an evaluation item got into a training row; the first that holds is told."""

    EXACT = "Exact"
    SHARED_GRAM = "SharedGram"
    CONTAINMENT = "Containment"


@dataclass(frozen=True)
class Contamination:
    """One training row that must go."""

    #: Number of the training row.
    row: int
    #: Name of the evaluation set.
    source: str
    leak: Leak


def contaminated_rows(
    train: Sequence[Conversation], evaluation: Mapping[str, Sequence[Conversation]]
) -> list[Contamination]:
    """Rows of ``train`` that share text with one of the named sets, in their order.

    A row that is contaminated twice is told once: by the first set, in the first way.
    """
    hashes = WordHashes()
    told: dict[int, Contamination] = {}
    rows = Spoken.of(train, hashes)
    template = frequent(rows.short, template_limit(len(train)))
    for source, items in evaluation.items():
        probe = Probe.of(Spoken.of(items, hashes), template)
        for row, leak in probe.leaks(rows):
            told.setdefault(row, Contamination(row, source, leak))
    return [told[row] for row in sorted(told)]


def by_reason(found: Sequence[Contamination]) -> dict[str, dict[str, int]]:
    """How many rows each set and leak costs."""
    counts: dict[str, dict[str, int]] = {}
    for (source, leak), count in sorted(Counter((one.source, one.leak) for one in found).items()):
        counts.setdefault(source, {})[leak.value] = count
    return counts


def template_limit(rows: int) -> float:
    return max(BOILERPLATE_ROWS, TEMPLATE_SHARE * rows)


@dataclass(frozen=True)
class Spoken:
    """What was said in conversations, as grams that never reach from one message into the next."""

    #: One number for each conversation: all words of its users.
    questions: Hashes
    #: The 3-grams of each message of its users, and how many messages those are.
    asked_short: Ragged
    asked_counts: list[int]
    #: 3-grams and runs of 8 words of each message, and how many messages those are.
    message_short: Ragged
    message_runs: Ragged
    counts: list[int]

    @classmethod
    def of(cls, conversations: Sequence[Conversation], hashes: WordHashes) -> Spoken:
        said = [
            [message for message in each.messages if message.role is not Role.SYSTEM]
            for each in conversations
        ]
        asked = [[message for message in each if message.role is Role.USER] for each in said]
        every = hashed_words((message.content for each in said for message in each), hashes)
        users = hashed_words((message.content for each in asked for message in each), hashes)
        asked_counts = [len(each) for each in asked]
        return cls(
            questions=fingerprints(users.grouped(asked_counts)),
            asked_short=grams(users, SHORT_WORDS),
            asked_counts=asked_counts,
            message_short=grams(every, SHORT_WORDS),
            message_runs=grams(every, RUN_WORDS, least=0),
            counts=[len(each) for each in said],
        )

    @cached_property
    def short(self) -> Ragged:
        return self.message_short.grouped(self.counts)

    @cached_property
    def runs(self) -> Ragged:
        return self.message_runs.grouped(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True)
class Probe:
    """What to look for in training rows so as to find one evaluation set."""

    questions: Hashes
    runs: Hashes
    #: Pairs of a 3-gram of a question and the item that asks it, sorted by gram.
    grams: Hashes
    items: Any
    #: How many of its 3-grams of each item a row must have.
    needed: Any

    @classmethod
    def of(cls, items: Spoken, template: Hashes) -> Probe:
        """``template``: the 3-grams that training rows share, sorted."""
        own = frequent(items.short, template_limit(len(items)))
        template = np.union1d(template, own)
        pairs = own_grams(items, template)
        counts = np.bincount(pairs[1], minlength=len(items))
        few = np.where(counts < FEW_GRAMS, counts, np.ceil(CONTAINED_SHARE * counts))
        needed = np.where(counts < LEAST_GRAMS, np.inf, few)
        return cls(np.unique(items.questions), telling_runs(items, template), *pairs, needed)

    def leaks(self, rows: Spoken) -> Iterator[tuple[int, Leak]]:
        """Training rows by number, and how the set got into them."""
        for leak, found in (
            (Leak.EXACT, rare(rows.questions, np.arange(len(rows)), self.questions)),
            (Leak.SHARED_GRAM, rare(rows.runs.values, rows.runs.owners, self.runs)),
            (Leak.CONTAINMENT, self._containing(rows.short)),
        ):
            for row in found.tolist():
                yield row, leak

    def _containing(self, short: Ragged) -> Any:
        """Rows in which enough 3-grams of one item stand."""
        found = [np.zeros(0, dtype=np.int64)]
        starts: Any = np.searchsorted(self.grams, self.grams)
        ends: Any = np.searchsorted(self.grams, self.grams, side="right")
        for start in range(0, len(short), ROWS_AT_ONCE):
            part = slice(*short.offsets[[start, min(start + ROWS_AT_ONCE, len(short))]])
            hit = is_in(short.values[part], self.grams)
            values, rows = distinct(short.values[part][hit], short.owners[part][hit])
            place = np.searchsorted(self.grams, values)
            # Each gram of a row once for each item that has it.
            times = ends[place] - starts[place]
            first = np.repeat(starts[place] - np.cumsum(times) + times, times)
            items = self.items[first + np.arange(len(first))]
            both, shared = np.unique(
                np.repeat(rows, times) * len(self.needed) + items, return_counts=True
            )
            enough = both[shared >= self.needed[both % len(self.needed)]]
            found.append(np.unique(enough // len(self.needed)))
        return np.concatenate(found)


def own_grams(items: Spoken, template: Hashes) -> tuple[Hashes, Any]:
    """3-grams that make the question of an item, and the item, each pair once, sorted by gram."""
    asked = items.asked_short
    shared = is_in(asked.values, template)
    own, inner = ~shared, ~(shared | beside(shared, asked.owners))
    question = asked.grouped(items.asked_counts).owners
    left = np.bincount(distinct(asked.values[inner], question[inner])[1], minlength=len(items))
    taken = np.where((left >= LEAST_GRAMS)[question], inner, own)
    return distinct(asked.values[taken], question[taken])


def beside(shared: Any, messages: Any) -> Any:
    """Which 3-grams have a word in common with one of the marked ones of the same message."""
    near = np.zeros(len(shared), dtype=bool)
    for step in range(1, SHORT_WORDS):
        together = messages[step:] == messages[:-step]
        near[step:] |= shared[:-step] & together
        near[:-step] |= shared[step:] & together
    return near


def telling_runs(items: Spoken, template: Hashes) -> Hashes:
    """The runs of 8 words that are not mostly template, sorted."""
    short, runs = items.message_short, items.message_runs
    telling = np.concatenate([[0], np.cumsum(~is_in(short.values, template))])
    first = np.arange(len(runs.values)) + (short.offsets - runs.offsets)[:-1][runs.owners]
    inside = RUN_WORDS - SHORT_WORDS + 1
    return np.unique(runs.values[telling[first + inside] - telling[first] > inside / 2])


def rare(values: Hashes, owners: Any, wanted: Hashes) -> Any:
    """Owners of a wanted value that no more than BOILERPLATE_ROWS of them have."""
    hit = is_in(values, wanted)
    values, owners = distinct(values[hit], owners[hit])
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.unique(owners[counts[place] <= BOILERPLATE_ROWS])
