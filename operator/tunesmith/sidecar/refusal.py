"""Why an adapter may not come near vLLM."""

from __future__ import annotations

from tunesmith.api.reasons import RefusalReason

LONGEST_QUOTE = 160


class Refused(Exception):  # noqa: N818 - a verdict, not an error
    """``message`` says what is wrong, where, and what to do instead."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


def quoted(value: object) -> str:
    """What a file says, fit for a message: files come from strangers.

    Escaped, as names may hold line breaks or halves of characters that no report can carry, and
    cut, as they may be as long as the file.
    """
    text = ascii(value[:LONGEST_QUOTE] if isinstance(value, str) else value)
    return text if len(text) <= 2 * LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
