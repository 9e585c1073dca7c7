"""The base model with the best system prompt: what an adapter must beat to be worth it.

Prompts are tried on rows that nobody is judged by. Solved examples come from rows that are not
even tried on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tunesmith_trainer.data.formats import Conversation, Message, Role

log = logging.getLogger(__name__)

#: One to show, one to try prompts on.
MINIMUM_EXAMPLES = 2
#: Solved examples that a prompt may show, and how many each candidate does.
SOLVED_EXAMPLES = 4
SHOTS = (1, SOLVED_EXAMPLES)

INTRODUCTION = "Solved examples follow. Answer in exactly the same form, with nothing around it."


@dataclass(frozen=True)
class SystemPrompt:
    """Text that goes before a question. Empty text leaves the question as it is."""

    name: str
    text: str

    def apply(self, conversation: Conversation) -> Conversation:
        """The conversation under this prompt, after the system message that it has already."""
        if not self.text:
            return conversation
        first, *rest = conversation.messages
        if first.role is Role.SYSTEM:
            changed = replace(first, content=f"{first.content}\n\n{self.text}")
            return Conversation((changed, *rest))
        return Conversation((Message(Role.SYSTEM, self.text), *conversation.messages))


@dataclass(frozen=True)
class ChosenPrompt:
    """The prompt that suited the base model best, and how each one did (0-100)."""

    best: SystemPrompt
    tried: list[tuple[SystemPrompt, float]]


AS_IT_IS = SystemPrompt("as it is", "")


def candidates(written: Sequence[str], solved: Sequence[Conversation]) -> Iterator[SystemPrompt]:
    """The question as it is, each prompt that somebody wrote, and all of them with examples."""
    named = [AS_IT_IS]
    named += [SystemPrompt(f"prompt {number}", text) for number, text in enumerate(written, 1)]
    yield from named
    for shots in SHOTS:
        if len(solved) < shots:
            continue
        for prompt in named:
            text = f"{prompt.text}\n\n{with_examples(solved[:shots])}".strip()
            count = f"{shots} solved example{'s' if shots > 1 else ''}"
            yield SystemPrompt(f"{prompt.name}, with {count}", text)


def parts(
    examples: Sequence[Conversation],
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """Examples to show, and examples to try prompts on: no row is both."""
    shown = min(SOLVED_EXAMPLES, len(examples) // 2)
    return examples[:shown], examples[shown:]


def trials(written: Sequence[str], examples: Sequence[Conversation]) -> int:
    """How many answers it takes to choose."""
    solved, tried_on = parts(examples)
    return len(list(candidates(written, solved))) * len(tried_on)


def with_examples(solved: Sequence[Conversation]) -> str:
    shown = [f"Input:\n{each.question[-1].content}\n\nOutput:\n{each.answer}" for each in solved]
    return "\n\n".join([INTRODUCTION, *shown])


def choose(
    written: Sequence[str],
    examples: Sequence[Conversation],
    score: Callable[[SystemPrompt, Sequence[Conversation]], float | None],
) -> ChosenPrompt:
    """The prompt with the highest mean score on rows that serve nothing else.

    ``score`` gives the mean in points, or None where the model cannot be asked so: the prompt does
    not fit its context, or its template has no system messages. Equal scores: the simpler prompt.
    """
    solved, tried_on = parts(examples)
    tried = []
    for candidate in candidates(written, solved):
        points = score(candidate, tried_on)
        if points is not None:
            log.info("base model, %s: %.1f on %d rows", candidate.name, points, len(tried_on))
            tried.append((candidate, points))
    best = max(tried, key=lambda each: each[1], default=(AS_IT_IS, 0.0))[0]
    return ChosenPrompt(best, tried)
