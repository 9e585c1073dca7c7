"""The garbage collector stops everything while it looks for cycles in what is kept."""

from __future__ import annotations

import gc

#: The youngest two generations as usual. The oldest, which holds what the watches' library
#: remembers of every object, is looked at by ``look_at_everything`` alone: under load that took
#: 0.15 to 0.4 s, several times in ten seconds.
THRESHOLDS = 700, 10, 1_000_000


def look_at_everything() -> None:
    """Collect what is of no use any more, and from then on look only at what is new."""
    gc.set_threshold(*THRESHOLDS)
    gc.collect()
