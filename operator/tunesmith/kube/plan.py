"""What a planner decides about one object. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from tunesmith.api.objects import Condition

Object = dict[str, Any]


class Status(Protocol):
    """The status model of any of our kinds."""

    @property
    def conditions(self) -> list[Condition]: ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Suspension:
    """Whether a Job may have pods, and what is noted on it in the same breath."""

    job_name: str
    suspend: bool
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is to be done about one object.

    ``create`` holds what must not be changed once it exists (Jobs, EvalRuns), ``apply`` what is
    kept as described, ``delete`` pairs of kind and name.
    """

    status: Status
    create: Sequence[Object] = ()
    apply: Sequence[Object] = ()
    delete: Sequence[tuple[str, str]] = ()
    #: Pods by name, and annotations for them; written after all else.
    annotate: Sequence[tuple[str, dict[str, str]]] = ()
    #: Jobs to stop, or to let go on.
    suspend: Sequence[Suspension] = ()
    #: The object itself is to go: it has served its time.
    expired: bool = False
    #: Kind and name of what is of no use any more. It is deleted last, and stops nothing if it
    #: cannot be.
    obsolete: Sequence[tuple[str, str]] = ()
    requeue_after: timedelta | None = None
