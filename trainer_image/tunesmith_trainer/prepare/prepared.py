"""The folder that a preparation leaves: examples in canonical form, and their digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.digests import files_digest
from tunesmith.api.trainer_contract import HELD_OUT_FILE, TRAIN_FILE

from tunesmith_trainer.data.formats import Conversation

#: What a review approves, and what the digest of prepared data is about.
EXAMPLE_FILES = (HELD_OUT_FILE, TRAIN_FILE)


@dataclass(frozen=True)
class Prepared:
    """Examples in canonical form. Held-out ones are for the evaluation, never for training."""

    train: list[Conversation]
    held_out: list[Conversation]
    #: Training examples to choose a prompt on.
    prompt_examples: list[Conversation]
    receipt: DatasetReceipt


def prepared_digest(folder: Path) -> str:
    """sha256 over held-out and training examples; ``sha256sum`` of both files, summed again."""
    return files_digest(folder, EXAMPLE_FILES)


def as_lines(conversations: Iterable[Conversation]) -> str:
    return "".join(f"{conversation.to_line()}\n" for conversation in conversations)
