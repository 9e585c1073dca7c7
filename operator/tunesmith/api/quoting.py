"""What strangers wrote, in a sentence of ours."""

from __future__ import annotations

LONGEST_QUOTE = 160


def quoted(value: object) -> str:
    """What a file says, fit for a message: files come from strangers.

    Escaped, as names may hold line breaks or halves of characters that no report can carry, and
    cut, as they may be as long as the file.
    """
    text = ascii(value[:LONGEST_QUOTE] if isinstance(value, str) else value)
    return text if len(text) <= 2 * LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
