"""How often is looked at what works for hours: less often, the more of it there is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from tunesmith.settings import Settings

#: Of everything that is under way together. Each look at a training that goes on is a write, which
#: costs a busy API server 10 to 14 ms of a core (docs/scale.md).
LOOKS_A_SECOND = 20


def paced(settings: Settings, under_way: Mapping[str, int], namespace: str) -> Settings:
    """The settings as they are in a namespace, with so many jobs and runs under way in each.

    Every namespace that has any gets the same share of the looks: a tenant with thousands waits for
    its own, and nobody else does.
    """
    share = LOOKS_A_SECOND / max(1, len(under_way))
    interval = timedelta(seconds=under_way.get(namespace, 0) / share)
    if interval <= settings.progress_interval:
        return settings
    return replace(settings, progress_interval=interval)
