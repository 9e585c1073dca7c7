"""The folder that a preparation leaves, and that a training reads if it is what was approved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.digests import files_digest
from tunesmith.api.objects import DatasetFormat
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PROMPT_EXAMPLES_FILE,
    RECEIPT_FILE,
    TRAIN_FILE,
    PlannedSource,
    Reason,
)

from tunesmith_trainer.data.formats import Conversation, conversation_from, rows_digest
from tunesmith_trainer.data.rows import read_rows
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.output import stored_folder

#: What a review approves, and what the digest of prepared data is about.
EXAMPLE_FILES = (HELD_OUT_FILE, TRAIN_FILE)
FILES = (*EXAMPLE_FILES, PROMPT_EXAMPLES_FILE, RECEIPT_FILE)


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


def examples_digest(train: Iterable[Conversation], held_out: Iterable[Conversation]) -> str:
    """The digest of a folder that is not written yet."""
    digests = {HELD_OUT_FILE: rows_digest(held_out), TRAIN_FILE: rows_digest(train)}
    lines = [f"{digests[name].removeprefix('sha256:')}  {name}\n" for name in sorted(digests)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def prepared_folder(source: PlannedSource) -> Path:
    """The folder on this machine. Raises TrainerError(PREPARED_DATA_CHANGED) if it is gone."""
    folder = stored_folder(source)
    if folder is None:
        raise changed(source.uri, "the folder does not exist")
    return folder


def read_prepared(folder: Path, uri: str, expected: DatasetReceipt) -> Prepared:
    """Raises TrainerError(PREPARED_DATA_CHANGED) unless the folder holds what was prepared."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise changed(uri, f"{', '.join(missing)} missing")
    found = prepared_digest(folder)
    if found != expected.digest:
        raise changed(uri, f"its examples have the digest {found}, not {expected.digest}")
    return Prepared(
        train=read_examples(folder / TRAIN_FILE),
        held_out=read_examples(folder / HELD_OUT_FILE),
        prompt_examples=read_examples(folder / PROMPT_EXAMPLES_FILE),
        receipt=expected,
    )


def read_examples(path: Path) -> list[Conversation]:
    return [conversation_from(row, DatasetFormat.MESSAGES) for row in read_rows(path)]


def changed(uri: str, what: str) -> TrainerError:
    return TrainerError(
        Reason.PREPARED_DATA_CHANGED,
        f"{uri} no longer holds the prepared examples ({what}): start a new job, which "
        "prepares them again",
    )
