"""Reading objects of ours that are not the one that a pass is about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError

from tunesmith.kube.cluster import Object

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")


def first_sentence(error: ValidationError) -> str:
    """What is wrong and where, of the first of several mistakes."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(each) for each in first["loc"])
    return f"{place}: {first['msg']}. Delete it and apply it again, mended."


def readable(parse: Callable[[Object], Thing], found: Iterable[Object]) -> list[Thing]:
    """The objects that can be parsed. One that another version wrote must not stop all others."""
    parsed = []
    for raw in found:
        try:
            parsed.append(parse(raw))
        except ValidationError as error:
            metadata = raw["metadata"]
            name = f"{raw['kind']} {metadata.get('namespace')}/{metadata['name']}"
            log.warning("%s cannot be read and is passed over: %s", name, error)
    return parsed
