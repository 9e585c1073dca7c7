"""What a suite asks and what came back: the form in which every kind of suite is measured.

A suite offers all its questions in an order of which every beginning is a sample (a fair one for
benchmarks, multiple choice with subjects and held-out rows; a file of one's own is asked as it
lies), so that the evaluation can stop as soon as it knows enough.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol

from tunesmith.api.evalrun import Asked
from tunesmith.api.evaluation_suite import Metric


class Side(StrEnum):
    """Who is asked."""

    BASE = "base"
    #: The base model under its best system prompt.
    PROMPTED_BASE = "promptedBase"
    #: With the adapter, or the merged model.
    ADAPTER = "adapter"


@dataclass(frozen=True)
class Question:
    """One item, as the model sees it."""

    prompt: str
    expected: str
    #: Subject; items of one subject are no independent evidence. Empty: it stands alone.
    group: str = ""
    #: Whatever else the answer of a given model depends on: choices, bounds, metric, task version.
    settings: str = ""

    @cached_property
    def key(self) -> str:
        """Equal keys: the same model gives the same answer with the same score."""
        parts = [self.prompt, self.expected, self.settings]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What one side answered to a question, and what that is worth."""

    text: str
    #: 0 to 100; a rating 1 to 10. None: it could not be rated, and the item does not count.
    score: float | None


class AskableSuite(Protocol):
    """A suite that is ready to be asked."""

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def questions(self) -> Sequence[Question]:
        """All there are, in the order in which they are asked."""
        ...

    @property
    def first(self) -> int:
        """How many questions are asked at least."""
        ...

    @property
    def approximate(self) -> bool:
        """Whether the first questions are only a sample of a benchmark that is known by all."""
        ...

    def asked(self, count: int) -> Asked:
        """What the first ``count`` questions are, in digests and versions."""
        ...

    def answers(self, side: Side, start: int, stop: int) -> list[Answer]:
        """One side's answers to ``questions[start:stop]``, in their order."""
        ...


@dataclass(frozen=True)
class Measured:
    """Everything that is known of a suite in the end, for the report."""

    name: str
    metric: Metric
    questions: Sequence[Question]
    #: The answers of each side that was asked, in the order of the questions.
    answers: dict[Side, list[Answer]]
    asked: Asked
    approximate: bool = False
    #: The system prompt that suited the base model best; None if none was better than none.
    best_prompt: str | None = None
    #: Mean scores of the system prompts that were tried, on rows that are not asked.
    tried_prompts: list[tuple[str, float]] = field(default_factory=list)
    failed_percent: float | None = None
    win_percent: float | None = None


def prompts_digest(questions: Sequence[Question]) -> str:
    """sha256 over the keys of the questions, in their order."""
    total = hashlib.sha256()
    for question in questions:
        total.update(question.key.encode())
    return f"sha256:{total.hexdigest()}"
