"""Rows as the data loader sees them: their length, and one that stands for nothing."""

from __future__ import annotations

from tunesmith_trainer.data.chat import Example
from tunesmith_trainer.train.engine.packing import Row

#: One token that nothing predicts: it costs next to nothing and teaches nothing.
FILLER_ROW: Row = [Example(tokens=[0], prompt_length=1)]


def length(row: Row) -> int:
    """In tokens, without padding."""
    return sum(len(example.tokens) for example in row)
