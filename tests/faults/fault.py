"""What can go wrong between the operator and the API server, written down."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """What kind of trouble it is; the figures are told by these."""

    CRASH = "operator killed at a write"
    ANSWER = "API server refuses or is silent"
    WATCH = "watches disturbed"
    CONTROL_PLANE = "control plane and clocks"
    OPERATORS = "two operators at once"
    HAND = "nodes, pods and hands"
    DELETION = "deleted in every phase"


class Moment(StrEnum):
    """When a request is struck."""

    BEFORE = "before the commit"
    AFTER = "after the commit"


class Effect(StrEnum):
    """What happens to a request that is struck."""

    KILL = "operator killed"
    FREEZE = "operator stopped until another has taken over"
    ANSWER = "answered with an error"
    SEVER = "connection cut"
    HANG = "never answered"


class Requests(StrEnum):
    """Which requests of the operator are counted; those for its lease never are."""

    WRITES = "write"
    READS = "read"


@dataclass(frozen=True)
class RequestFault:
    """Strikes the request of this number, counted from one, or several in a row."""

    effect: Effect
    moment: Moment
    number: int
    #: With Effect.ANSWER: the HTTP status.
    status: int = 0
    requests: Requests = Requests.WRITES
    times: int = 1

    def __str__(self) -> str:
        which = f"{self.requests} {self.number}"
        if self.times > 1:
            which += f" to {self.number + self.times - 1}"
        what = f"{self.effect} ({self.status})" if self.status else str(self.effect)
        return f"{what} {self.moment} of {which}"


class Disturbance(StrEnum):
    """What happens to the events of a watch."""

    CUT = "connection cut"
    GONE = "410 Gone"
    LOST = "events lost in a gap, then 410 Gone"
    DUPLICATED = "events again, late"
    REORDERED = "events out of order"
    DELAYED = "events late"


@dataclass(frozen=True)
class WatchFault:
    """Disturbs the events of every watch. The seed makes it the same each time."""

    disturbance: Disturbance
    seed: int

    def __str__(self) -> str:
        return f"watch: {self.disturbance} (seed {self.seed})"


Fault = RequestFault | WatchFault


def may_hinder_a_start(fault: Fault | None) -> bool:
    """An operator reads what there is before it begins, and ends where it cannot. Then it is
    started again: that is by design, and nothing else that is refused may end it."""
    return isinstance(fault, RequestFault) and fault.requests is Requests.READS
