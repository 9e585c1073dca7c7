"""An order of questions of which every beginning is a fair sample of the subjects. Pure."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

#: Fixed, so that everybody asks the same questions first.
SEED = 20_240_601


def in_turn(items: Iterable[T], subject: Callable[[T], str]) -> list[T]:
    """One question of each subject in turn, shuffled within each subject.

    A subject that has no more is passed over.
    """
    subjects: dict[str, list[T]] = defaultdict(list)
    for item in items:
        subjects[subject(item)].append(item)
    ranked = []
    for place, (name, members) in enumerate(sorted(subjects.items())):
        # The name is in the seed: a subject keeps its order when another is added.
        random.Random(f"{SEED} {name}").shuffle(members)
        ranked += [((rank, place), member) for rank, member in enumerate(members)]
    return [member for _, member in sorted(ranked, key=lambda entry: entry[0])]


def first_of_each(subjects: Iterable[str], at_most: int) -> int:
    """How many questions ``at_most`` of each subject are: so many are first in turn."""
    sizes: dict[str, int] = defaultdict(int)
    for subject in subjects:
        sizes[subject] += 1
    return sum(min(at_most, size) for size in sizes.values())
