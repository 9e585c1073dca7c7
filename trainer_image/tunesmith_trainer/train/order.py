"""What each optimiser step trains on: a function of seed and epoch, and of nothing else.

The sequences of a step are the same however they are cut into micro-batches and shared out among
processes. So an attempt with half the micro-batch, or on other GPUs, goes on where the last one
stopped, and sees the same data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Generator, randperm

#: Stands for a sequence without labels, where a process has none left in the last step.
FILLER = -1


@dataclass
class StepOrder:
    """A batch sampler: micro-batches of one process, epoch after epoch.

    Every process gets the same number of micro-batches in a step, as they wait for each other in
    each. ``lengths`` are the tokens of the sequences.
    """

    lengths: Sequence[int]
    batch_size: int
    micro_batch_size: int
    seed: int
    processes: int = 1
    rank: int = 0
    epoch: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps in an epoch; the last one may be smaller."""
        return math.ceil(len(self.lengths) / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def permutation(self) -> list[int]:
        # Knuth's multiplicative hash keeps (seed, epoch) pairs apart, which seed + epoch would not.
        generator = Generator().manual_seed((self.seed * 2654435761 + self.epoch) % 2**63)
        return [int(index) for index in randperm(len(self.lengths), generator=generator)]

    def step(self, number: int, permutation: Sequence[int] | None = None) -> list[int]:
        """The sequences of a step of this epoch, from 0."""
        order = self.permutation() if permutation is None else permutation
        return list(order[number * self.batch_size : (number + 1) * self.batch_size])

    def tokens_by_step(self) -> list[int]:
        """Tokens of each step of this epoch, over all processes."""
        order = self.permutation()
        return [
            sum(self.lengths[index] for index in self.step(number, order))
            for number in range(self.steps)
        ]

    def rounds(self, sequences: int) -> int:
        """Micro-batches of each process for so many sequences."""
        return math.ceil(math.ceil(sequences / self.micro_batch_size) / self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        return self._micro_batches(self.permutation())

    def in_file_order(self) -> Iterator[list[int]]:
        """Without shuffling, for evaluations."""
        return self._micro_batches(range(len(self.lengths)))

    def _micro_batches(self, order: Sequence[int]) -> Iterator[list[int]]:
        size = self.micro_batch_size
        for number in range(self.steps):
            sequences = self.step(number, order)
            batches = [sequences[at : at + size] for at in range(0, len(sequences), size)]
            for round_ in range(self.rounds(len(sequences))):
                mine = round_ * self.processes + self.rank
                yield batches[mine] if mine < len(batches) else [FILLER]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole * self.rounds(self.batch_size) + self.rounds(rest)
