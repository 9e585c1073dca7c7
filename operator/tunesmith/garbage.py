"""The garbage collector stops everything while it looks for cycles in what is kept."""

from __future__ import annotations

import gc

#: New objects until the youngest generation is looked at, and how many times until the middle one
#: is. The oldest, which holds what the watches' library remembers of every object, is looked at by
#: ``look_at_everything`` alone: under load that took 0.15 to 0.4 s, several times in ten seconds.
THRESHOLDS = 20_000, 20, 1_000_000


def look_at_everything() -> None:
    """Collect what is of no use any more, and from then on look only at what is new."""
    gc.set_threshold(*THRESHOLDS)
    gc.collect()
