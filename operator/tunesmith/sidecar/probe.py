"""Proof that a version does something on this replica: its first tokens differ from the base's.

Log-probabilities of the first token with a tolerance, never generated text: batching alone changes
greedy text, and by itself moves these log-probabilities by up to about 0.06 in bfloat16 (seen with
mixed batches of an 8B model of random weights on one H100, vLLM 0.26.0).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tunesmith.api.trainer_contract import HELD_OUT_FILE

#: Twice the noise of batching.
LEAST_DIFFERENCE = 0.12

GENERAL_PROMPTS = ("The", "Question: What is this about?\nAnswer:", '{"')
HELD_OUT_PROMPTS = 4
LONGEST_PROMPT = 400
LARGEST_ROW_BYTES = 1 << 20


def prompts(adapter: Path) -> Iterator[str]:
    """What to ask: first what the adapter was trained for, if its folder tells."""
    yield GENERAL_PROMPTS[0]
    yield from held_out_prompts(adapter / HELD_OUT_FILE)
    yield from GENERAL_PROMPTS[1:]


def held_out_prompts(file: Path) -> Iterator[str]:
    """The questions of the first held-out examples; nothing when they cannot be read."""
    try:
        # The folder is its owner's: no pipe is waited for, and no link followed elsewhere.
        if not file.is_file() or file.is_symlink():
            return
        with file.open(encoding="utf-8") as rows:
            for _ in range(HELD_OUT_PROMPTS):
                row = json.loads(rows.readline(LARGEST_ROW_BYTES))
                text = "\n".join(str(each["content"]) for each in row["messages"][:-1])
                yield f"{text[-LONGEST_PROMPT:]}\n"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return


def difference(one: dict[str, float], other: dict[str, float]) -> float:
    """Largest difference of a token's log-probability.

    A token that only one side lists is at most as likely on the other as the least likely one
    listed there, so the true difference is at least the one taken.
    """
    if not one or not other:
        return 0.0
    least_one, least_other = min(one.values()), min(other.values())
    return max(
        abs(one[token] - other[token])
        if token in one and token in other
        else max(0.0, one[token] - least_other if token in one else other[token] - least_one)
        for token in one.keys() | other.keys()
    )
