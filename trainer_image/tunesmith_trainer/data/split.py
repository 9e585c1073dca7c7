"""Setting examples aside before anything else is done to the data.

The choice depends on content and seed only: distinct rows are ordered by sha256(seed, row), and
the first ``ceil(fraction * distinct rows)`` are held out, in that order, each once. So the split is
the same on every machine and in every order of the file, identical rows can never lie on both
sides, and the first N held-out rows are a random sample of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.objects import HeldOut

from tunesmith_trainer.data.formats import Conversation, rows_digest

#: Rows of the training side that are kept to choose the base model's prompt on. A few dozen tell a
#: good prompt from a bad one, and asking them costs little beside the evaluation itself.
PROMPT_EXAMPLES = 28


@dataclass(frozen=True)
class Split:
    """A dataset in two parts that share no row. Every row is in one of them or a duplicate."""

    train: list[Conversation]
    held_out: list[Conversation]
    receipt: DatasetReceipt


def split_and_deduplicate(conversations: Sequence[Conversation], held_out: HeldOut) -> Split:
    """Seal the held-out side, then drop exact duplicates from the training side."""
    distinct = {conversation.digest(): conversation for conversation in conversations}
    count = max(1, math.ceil(held_out.fraction * len(distinct)))
    ranked = sorted(distinct, key=lambda digest: salted(digest, held_out.seed))
    sealed = ranked[:count]

    kept = distinct.keys() - set(sealed)
    train = [conversation for digest, conversation in distinct.items() if digest in kept]
    chosen = [distinct[digest] for digest in sealed]
    assert not set(train) & set(chosen), "a held-out row is in the training data"

    receipt = DatasetReceipt(
        digest=rows_digest(conversations),
        rows=len(conversations),
        held_out_rows=len(chosen),
        held_out_digest=rows_digest(chosen),
        duplicate_rows=len(conversations) - len(distinct),
        train_rows=len(train),
    )
    return Split(train, chosen, receipt)


def prompt_examples(train: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Training rows to choose the base model's prompt on: a random sample, always the same."""
    ranked = sorted(train, key=lambda each: salted(each.digest(), seed))
    return ranked[:PROMPT_EXAMPLES]


def salted(digest: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()
