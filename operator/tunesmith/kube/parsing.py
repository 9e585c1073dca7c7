"""Reading objects of ours, which another version may have written, or somebody by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from pydantic import ValidationError

from tunesmith.api.objects import Condition
from tunesmith.kube.cluster import Object

Thing = TypeVar("Thing")


def readable(parse: Callable[[Object], Thing], found: Iterable[Object]) -> list[Thing]:
    """The objects that can be parsed. One that cannot must not stop all others; its own pass says
    what is wrong with it."""
    parsed = []
    for raw in found:
        with suppress(ValidationError):
            parsed.append(parse(raw))
    return parsed


def readable_conditions(raw: Object) -> list[Condition]:
    """The conditions of an object of which nothing else may be readable."""
    try:
        return [Condition.model_validate(each) for each in raw["status"]["conditions"]]
    except (ValidationError, LookupError, TypeError):
        return []


def first_complaint(error: ValueError) -> str:
    """What is wrong with an object, in a clause for people: the first of what pydantic found."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the object"
    return f"{place}: {first['msg']}"
