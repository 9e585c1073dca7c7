"""How often is looked at what works for hours: less often, the more of it there is. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tunesmith.settings import Settings

#: Of everything that is under way together. Each look at a training that goes on is a write, which
#: costs a busy API server 10 to 14 ms of a core (docs/scale.md).
LOOKS_A_SECOND = 20


def paced(settings: Settings, under_way: int) -> Settings:
    """The settings as they are with so many jobs and runs under way."""
    interval = timedelta(seconds=under_way / LOOKS_A_SECOND)
    if interval <= settings.progress_interval:
        return settings
    return replace(settings, progress_interval=interval)
