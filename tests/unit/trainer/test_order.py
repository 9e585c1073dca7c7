"""Which sequences a step trains on, and which examples choose the best epoch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.train.dev_slice import MOST, dev_slice
from tunesmith_trainer.train.order import FILLER, StepOrder

CUTS = [(8, 1), (4, 1), (1, 1), (4, 2), (1, 4), (2, 3)]


def order(micro: int, processes: int, rank: int = 0, rows: int = 45, batch: int = 8) -> StepOrder:
    return StepOrder([10] * rows, batch, micro, seed=7, processes=processes, rank=rank)


def steps(micro: int, processes: int) -> list[list[int]]:
    """The sequences of each step, collected from the micro-batches of all processes."""
    orders = [order(micro, processes, rank) for rank in range(processes)]
    taken = [list(each) for each in orders]
    assert len({len(each) for each in taken}) == 1, "every process has as many micro-batches"
    assert len(taken[0]) == len(orders[0])
    found: list[list[int]] = []
    at = 0
    while at < len(taken[0]):
        rest = 45 - sum(len(step) for step in found)
        rounds = orders[0].rounds(min(8, rest))
        batches = [taken[rank][at + each] for each in range(rounds) for rank in range(processes)]
        found.append([index for batch in batches for index in batch if index != FILLER])
        at += rounds
    return found


@pytest.mark.parametrize(("micro", "processes"), CUTS)
def test_a_step_holds_the_same_sequences_however_it_is_cut(micro: int, processes: int) -> None:
    assert steps(micro, processes) == steps(8, 1)


def test_an_epoch_holds_every_sequence_once() -> None:
    assert sorted(index for step in steps(4, 2) for index in step) == list(range(45))


def test_epochs_differ_and_come_again() -> None:
    first, second, again = order(4, 1), order(4, 1), order(4, 1)
    second.set_epoch(1)
    again.set_epoch(1)
    assert list(first) != list(second) == list(again)


def test_tokens_are_counted_over_all_processes() -> None:
    assert order(4, 2).tokens_by_step() == [80] * 5 + [50]


def conversations(count: int) -> list[Conversation]:
    return [
        Conversation((Message(Role.USER, f"question {number}"), Message(Role.ASSISTANT, "yes")))
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("rows", "dev"), [(10, 0), (19, 0), (20, 1), (100, 5), (4000, 200), (5000, MOST)]
)
def test_the_dev_slice_is_small(rows: int, dev: int) -> None:
    found = dev_slice(conversations(rows), seed=1)
    assert (len(found.dev), len(found.train)) == (dev, rows - dev)
    assert not set(found.dev) & set(found.train)


def test_the_dev_slice_depends_on_content_and_seed_alone() -> None:
    rows = conversations(200)
    assert set(dev_slice(rows, 1).dev) == set(dev_slice(rows[::-1], 1).dev)
    assert set(dev_slice(rows, 1).dev) != set(dev_slice(rows, 2).dev)
