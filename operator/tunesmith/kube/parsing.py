"""Reading what others wrote: objects of ours, by another version or by hand, and words of pods."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from tunesmith.api.objects import Condition

Object = dict[str, Any]
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


def json_of_a_pod(text: str | bytes) -> Any:
    """What a pod said. Raises ValueError for what no honest one says and no status can hold.

    Its image may be its user's own: lists in lists without end, numbers that are none or that no
    API server takes, half characters.
    """
    try:
        found = json.loads(
            text, parse_constant=_no_number, parse_int=_whole_number, parse_float=_finite_number
        )
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _whole_number(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError("a number of more than 64 bits")
    return number


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number without an end")
    return number
