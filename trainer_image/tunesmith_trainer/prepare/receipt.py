"""receipt.json: what became of every row, and which ones were dropped, without their text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pydantic import Field
from tunesmith.api.dataset import DatasetAudit, DatasetReceipt
from tunesmith.api.trainer_contract import HELD_OUT_FILE, TRAIN_FILE

from tunesmith_trainer.data.formats import Conversation, rows_digest

#: Digests of each kind of dropped row; the counts have all.
MAXIMUM_DIGESTS = 100


class PreparationReceipt(DatasetReceipt):
    """The receipt in status, and what is too long for it."""

    audit: DatasetAudit
    #: What was left of the training rows, by name of the evaluation set and kind of leak.
    contamination: dict[str, dict[str, int]] = Field(default_factory=dict)
    #: sha256 of dropped rows in canonical form, by what they were dropped as.
    dropped: dict[str, list[str]] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)

    def for_status(self) -> DatasetReceipt:
        return DatasetReceipt.model_validate(self.model_dump())


def some(digests: Sequence[str]) -> list[str]:
    """The first digests, sorted: the same for the same rows."""
    return sorted(digests)[:MAXIMUM_DIGESTS]


def examples_digest(train: Iterable[Conversation], held_out: Iterable[Conversation]) -> str:
    """The digest of a folder that is not written yet."""
    digests = {HELD_OUT_FILE: rows_digest(held_out), TRAIN_FILE: rows_digest(train)}
    lines = [f"{digests[name].removeprefix('sha256:')}  {name}\n" for name in sorted(digests)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
