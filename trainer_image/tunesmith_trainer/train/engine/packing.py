"""Documents end to end in rows, and rows end to end in a micro-batch.

No token is dropped and none is padding, but for what fills a row up to a fixed length, where the
compiler would else compile for each length anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tunesmith.api.training import Backend

from tunesmith_trainer.data.chat import IGNORED, Example
from tunesmith_trainer.train.engine.settings import EngineSettings

#: A row: documents in tokens, each with its labels.
Row = list[Example]


class Rows(Dataset[Row]):  # type: ignore[misc]
    """What the data loader shuffles and draws micro-batches from."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]


def rows_of(examples: Sequence[Example], length: int, *, packing: bool) -> Rows:
    """Best-fit decreasing: each document goes whole into the fullest row that still has room.

    Without packing each document is a row of its own. Raises ValueError if one does not fit.
    """
    if not packing:
        return Rows([[example] for example in examples])
    rows: list[Row] = []
    #: (room, row) of all rows that are not full, ascending.
    open_rows: list[tuple[int, int]] = []
    for example in sorted(examples, key=lambda each: -len(each.tokens)):
        size = len(example.tokens)
        if size > length:
            raise ValueError(f"a document of {size} tokens does not fit into rows of {length}")
        place = bisect_left(open_rows, (size, -1))
        if place < len(open_rows):
            room, row = open_rows.pop(place)
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(example)
        if room > size:
            left = (room - size, row)
            open_rows.insert(bisect_left(open_rows, left), left)
    return Rows(rows)


def feeding(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    settings: EngineSettings,
    micro_batch_size: int,
    *,
    packing: bool,
) -> tuple[Rows, Rows, Collator | PaddedCollator]:
    """Both sets in rows, and what makes micro-batches of them. Raises ValueError as ``rows_of``."""
    unsloth = settings.backend is Backend.UNSLOTH
    # Its attention is not ours, so no document shares a row.
    packing = packing and not unsloth
    train_rows = rows_of(examples, settings.max_length, packing=packing)
    held_out_rows = rows_of(held_out, settings.max_length, packing=packing)
    if unsloth:
        return train_rows, held_out_rows, PaddedCollator()
    # Compiled code is for one shape: rows of a micro-batch are filled up, by a per cent or two.
    fixed = settings.max_length * micro_batch_size if settings.compile and packing else None
    return train_rows, held_out_rows, Collator(settings.max_length, fixed)


@dataclass(frozen=True)
class PaddedCollator:
    """One document a row, padded behind to the longest, for models whose attention is their own."""

    padding_token: int = 0

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        documents = [example for row in rows for example in row]
        sizes = np.array([len(each.tokens) for each in documents])
        shape = len(documents), int(sizes.max())
        token_ids = np.full(shape, self.padding_token, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        for row, document in enumerate(documents):
            token_ids[row, : sizes[row]] = document.tokens
            labels[row, 1 : sizes[row]] = document.labels[1:]
        labelled = np.flatnonzero(labels != IGNORED)
        return {
            "input_ids": torch.from_numpy(token_ids),
            "attention_mask": torch.from_numpy(
                (np.arange(shape[1]) < sizes[:, None]).astype(np.int64)
            ),
            "target_positions": torch.from_numpy(labelled - 1),
            "targets": torch.from_numpy(labels.ravel()[labelled]),
            "real_tokens": int(sizes.sum()),
        }


@dataclass(frozen=True)
class Collator:
    """Rows → the engine's inputs. ``tokens``: pad to so many tokens, None for as they come.

    The padding is documents of its own, so that nothing attends to it, and carries no label.
    """

    longest: int
    tokens: int | None = None
    padding_token: int = 0

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        documents = [example for row in rows for example in row]
        real = sum(len(each.tokens) for each in documents)
        sizes = [len(each.tokens) for each in documents] + self._fillers(real)
        padding = [self.padding_token] * (sum(sizes) - real)
        token_ids = np.concatenate([*(np.asarray(each.tokens) for each in documents), padding])
        labels = np.concatenate([*(np.asarray(each.labels) for each in documents), padding])
        starts = np.cumsum([0, *sizes])
        # Nothing predicts a document's first token, labelled or not.
        labels[starts[:-1]] = IGNORED
        labels[real:] = IGNORED
        labelled = np.flatnonzero(labels != IGNORED)
        return {
            "input_ids": torch.from_numpy(token_ids.astype(np.int64))[None],
            "position_ids": torch.from_numpy(np.concatenate([np.arange(s) for s in sizes]))[None],
            "cu_seq_lens_q": torch.from_numpy(starts.astype(np.int32)),
            "max_length_q": self.longest,
            "target_positions": torch.from_numpy(labelled - 1),
            "targets": torch.from_numpy(labels[labelled].astype(np.int64)),
            "real_tokens": real,
        }

    def _fillers(self, real: int) -> list[int]:
        """Sizes of the documents of padding."""
        missing = max(0, (self.tokens or 0) - real)
        whole, rest = divmod(missing, self.longest)
        return [self.longest] * whole + [rest] * (rest > 0)
