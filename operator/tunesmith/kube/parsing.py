"""Reading objects of ours that are not the one that a pass is about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError

from tunesmith.kube.cluster import Object

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")


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
