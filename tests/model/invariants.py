"""What must always hold. docs/invariants.md says the same under the same names.

Each invariant is a function that tells what is wrong, a sentence each; its docstring is its
sentence in the document.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from tests.model.api_server import View, Write
from tests.model.truth import Truth


class When(Enum):
    """When a state of the whole is looked at."""

    ALWAYS = auto()
    #: Nothing happens any more, and every pass has nothing to do.
    AT_REST = auto()
    #: After all faults have stopped, everything was mended and all pods succeeded.
    IN_THE_END = auto()
    #: And then everything of ours is deleted.
    ALL_DELETED = auto()


OfAWrite = Callable[[Write, Truth], Iterator[str]]
OfAState = Callable[[View], Iterator[str]]

OF_WRITES: list[OfAWrite] = []
OF_STATES: list[tuple[When, OfAState]] = []

#: Those that are seen only by playing on.
PLAYED = {
    "no_pass_breaks": "A pass ends without an exception, whatever it is shown.",
    "a_look_suffices": (
        "After a pass that sets its next look and touches nothing but its status, another at once "
        "writes nothing: its status need not be looked at."
    ),
    "everything_settles": (
        "With no further events a few passes over everything reach a fixed point, where a pass "
        "writes nothing."
    ),
}


@dataclass
class BrokenError(AssertionError):
    """An invariant does not hold."""

    name: str
    complaint: str

    def __str__(self) -> str:
        return f"{self.name}: {self.complaint}"


def of_writes(check: OfAWrite) -> OfAWrite:
    """Looked at with each write of the operator."""
    OF_WRITES.append(check)
    return check


def of_states(when: When) -> Callable[[OfAState], OfAState]:
    """Looked at with the state of the whole."""

    def register(check: OfAState) -> OfAState:
        OF_STATES.append((when, check))
        return check

    return register


def check_write(write: Write, truth: Truth) -> None:
    for check in OF_WRITES:
        for complaint in check(write, truth):
            raise BrokenError(check.__name__, complaint)


def check_state(view: View, *moments: When) -> None:
    for when, check in OF_STATES:
        if when in moments:
            for complaint in check(view):
                raise BrokenError(check.__name__, complaint)


def sentences() -> dict[str, str]:
    """All of them by name."""
    written = [*OF_WRITES, *(check for _, check in OF_STATES)]
    found = {each.__name__: " ".join((inspect.getdoc(each) or "").split()) for each in written}
    return found | PLAYED
