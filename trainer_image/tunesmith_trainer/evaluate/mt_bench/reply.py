"""What a judge has to answer, and how its answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Choice = int | str

#: In characters. Without a bound a weak judge can write its reason for ever. One for each token
#: that it may write leaves room for the choice, whatever the reason is made of.
LONGEST_REASON = 1000
#: Judges that think aloud end their thoughts so, where the server does not take them out.
END_OF_THOUGHT = "</think>"
DOUBLE_BRACKETS = re.compile(r"\[\[\s*(\w+)\s*\]\]")


@dataclass(frozen=True)
class ReplyForm:
    """A JSON object of a reason and a choice.

    The reason comes first, so that the judge thinks before it decides.
    """

    field: str
    choices: tuple[Choice, ...]

    def response_format(self, max_tokens: int) -> dict[str, Any]:
        """The form as OpenAI's API takes it, for an answer of so many tokens.

        Choices are listed: more servers know ``enum`` than bounds of a number. ``strict`` is left
        out, for with it some servers refuse ``maxLength``.
        """
        kind = "integer" if isinstance(self.choices[0], int) else "string"
        schema = {
            "type": "object",
            "properties": {
                "reason": {"type": "string", "maxLength": min(LONGEST_REASON, max_tokens)},
                self.field: {"type": kind, "enum": list(self.choices)},
            },
            "required": ["reason", self.field],
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": self.field, "schema": schema}}

    def read(self, text: str) -> Choice | None:
        """The choice in an answer; None if there is none, or one that was not offered.

        A judge without a schema may wrap its JSON in prose, or answer ``[[7]]``. The last word
        counts: a judge may quote what it judges before it decides.
        """
        said = text.rpartition(END_OF_THOUGHT)[2]
        decided = [each[self.field] for each in objects_in(said) if self.field in each]
        if decided:
            return self._offered(decided[-1])
        brackets = DOUBLE_BRACKETS.findall(said)
        if not brackets:
            return None
        return self._offered(int(brackets[-1]) if brackets[-1].isdecimal() else brackets[-1])

    def _offered(self, value: object) -> Choice | None:
        # True is 1 in Python, but not a rating.
        if isinstance(value, bool):
            return None
        return next((choice for choice in self.choices if choice == value), None)


RATING = ReplyForm("rating", tuple(range(1, 11)))
WINNER = ReplyForm("winner", ("A", "B", "tie"))


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, in their order."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield found
        start = text.find("{", end)
