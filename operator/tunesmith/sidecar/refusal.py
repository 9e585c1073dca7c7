"""Why an adapter may not come near vLLM."""

from __future__ import annotations

from tunesmith.api.reasons import RefusalReason


class Refused(Exception):  # noqa: N818 - a verdict, not an error
    """``message`` says what is wrong, where, and what to do instead."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
