"""The held-out side: sealed by content, the same everywhere, never trained on."""

from __future__ import annotations

import math
import random

import pytest
from tunesmith.api.objects import HeldOut
from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.data.split import split_and_deduplicate


def conversation(number: int) -> Conversation:
    return Conversation((Message(Role.USER, f"q{number}"), Message(Role.ASSISTANT, f"a{number}")))


ROWS = [conversation(number) for number in range(100)]


@pytest.mark.parametrize(("fraction", "distinct"), [(0.1, 100), (0.1, 11), (0.15, 33), (0.5, 10)])
def test_at_least_the_fraction_asked_for_is_held_out(fraction: float, distinct: int) -> None:
    split = split_and_deduplicate(ROWS[:distinct], HeldOut(fraction=fraction))
    assert len(split.held_out) == math.ceil(fraction * distinct)
    assert len(split.held_out) + len(split.train) == distinct


def test_no_row_is_on_both_sides() -> None:
    split = split_and_deduplicate(ROWS + ROWS[:50], HeldOut())
    assert not set(split.train) & set(split.held_out)


def test_the_choice_does_not_depend_on_the_order_of_the_file() -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    first = split_and_deduplicate(ROWS, HeldOut())
    second = split_and_deduplicate(shuffled, HeldOut())
    assert first.held_out == second.held_out
    assert first.receipt.held_out_digest == second.receipt.held_out_digest
    assert first.receipt.digest != second.receipt.digest


def test_another_seed_is_another_choice() -> None:
    first = split_and_deduplicate(ROWS, HeldOut(seed=1))
    second = split_and_deduplicate(ROWS, HeldOut(seed=2))
    assert set(first.held_out) != set(second.held_out)


def test_held_out_rows_stay_held_out_when_rows_are_added() -> None:
    """Content decides: a row moves only if new rows push it over the edge of the fraction."""
    before = split_and_deduplicate(ROWS[:90], HeldOut()).held_out
    after = split_and_deduplicate(ROWS, HeldOut()).held_out
    assert len(set(before) & set(after)) >= len(before) - 2


def test_every_row_is_accounted_for() -> None:
    split = split_and_deduplicate(ROWS + ROWS[:30], HeldOut(fraction=0.2))
    receipt = split.receipt
    assert (receipt.rows, receipt.held_out_rows, receipt.train_rows) == (130, 20, 80)
    assert receipt.duplicate_rows == 30
    assert receipt.rows == receipt.held_out_rows + receipt.train_rows + receipt.duplicate_rows
