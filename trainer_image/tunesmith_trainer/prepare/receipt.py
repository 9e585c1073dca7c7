"""receipt.json: what became of every row, and which ones were dropped, without their text."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from tunesmith.api.dataset import DatasetAudit, DatasetReceipt

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
