"""How often is looked at what works for hours: less often, the more of it there is. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from tunesmith.settings import Settings

#: Of everything that is under way together. Each look at a training that goes on is a write, which
#: costs a busy API server 10 to 14 ms of a core (docs/scale.md).
LOOKS_A_SECOND = 20


def paced(settings: Settings, under_way: Mapping[str, int], namespace: str) -> Settings:
    """The settings as they are in a namespace, with so many jobs and runs under way in each.

    Namespaces have equal shares of the looks: a tenant with thousands waits for its own, and nobody
    else does.
    """
    usual, own = settings.progress_interval.total_seconds(), under_way.get(namespace, 0)
    share = _share(under_way.values(), usual)
    if own <= share * usual:
        return settings
    return replace(settings, progress_interval=timedelta(seconds=own / share))


def _share(counts: Iterable[int], usual: float) -> float:
    """Looks a second that one namespace may have; who needs fewer leaves the rest to the others.

    Max-min fairness (Bertsekas and Gallager, Data Networks, section 6.5.2).
    """
    left, ordered = float(LOOKS_A_SECOND), sorted(counts)
    for position, count in enumerate(ordered):
        share = left / (len(ordered) - position)
        if count > share * usual:
            return share
        left -= count / usual
    return math.inf
