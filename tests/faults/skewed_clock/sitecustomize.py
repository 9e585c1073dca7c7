"""A clock that is wrong, for one Python: imported by it before anything else.

A fake, because the machine has one clock: only what Python says the time of day is differs.
"""

import datetime
import os

AHEAD = datetime.timedelta(seconds=float(os.environ.get("CLOCK_AHEAD_SECONDS", "0")))


class SkewedDateTime(datetime.datetime):
    """Datetimes whose ``now`` is ahead, or behind."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "SkewedDateTime":
        return super().now(tz) + AHEAD


datetime.datetime = SkewedDateTime  # type: ignore[misc]
