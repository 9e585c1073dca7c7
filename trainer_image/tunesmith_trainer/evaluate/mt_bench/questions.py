"""The file of questions: JSON Lines in the form that MT-Bench is known in.

The questions themselves are not part of Tunesmith.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.formats import text_of
from tunesmith_trainer.data.rows import Row, read_rows
from tunesmith_trainer.failure import TrainerError

SHAPE = '{"question_id": 1, "category": "writing", "turns": ["first", "second"]}'
#: Where an answer is right or wrong, and a judge that knows the solution judges better
#: (arXiv:2306.05685, section 3.4).
CATEGORIES_WITH_A_SOLUTION = frozenset({"math", "reasoning", "coding"})
#: A difference between two models has no interval with fewer.
MINIMUM_QUESTIONS = 2


@dataclass(frozen=True)
class TwoTurnQuestion:
    """What a user says first, and what they say to any answer to that."""

    identifier: str
    category: str
    turns: tuple[str, str]
    #: Right answers to both turns, if the file has them.
    reference: tuple[str, str] | None = None

    @property
    def solution(self) -> tuple[str, str] | None:
        """What the judge is told to be right."""
        return self.reference if self.category in CATEGORIES_WITH_A_SOLUTION else None

    def to_line(self) -> str:
        """Canonical JSON: equal questions are equal lines."""
        parts = [self.identifier, self.category, self.turns, self.reference]
        return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def read_questions(path: Path, uri: str) -> list[TwoTurnQuestion]:
    """Every question of the file. Raises TrainerError for the first row that is not right."""
    questions: dict[str, TwoTurnQuestion] = {}
    for row in read_rows(path):
        question = question_from(row)
        if question.identifier in questions:
            raise row.complaint(
                f"question_id {question.identifier} is in the file twice: number every question "
                "differently"
            )
        questions[question.identifier] = question
    if len(questions) < MINIMUM_QUESTIONS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL if questions else Reason.DATASET_EMPTY,
            f"{uri} has {len(questions)} questions, and at least {MINIMUM_QUESTIONS} are needed: "
            f"write one per line, as {SHAPE}",
        )
    return list(questions.values())


def question_from(row: Row) -> TwoTurnQuestion:
    identifier = row.fields.get("question_id")
    if not isinstance(identifier, int | str) or isinstance(identifier, bool) or identifier == "":
        raise row.complaint(f'"question_id" must be a number or text: write {SHAPE}')
    reference = row.fields.get("reference")
    return TwoTurnQuestion(
        str(identifier),
        text_of(row, row.fields, "category", "").strip().lower(),
        two_texts(row, row.fields.get("turns"), "turns", "both things that the user says"),
        # Files write a missing reference as null or as an empty list, too.
        two_texts(row, reference, "reference", "the right answers to both turns, or leave it out")
        if reference
        else None,
    )


def two_texts(row: Row, value: object, key: str, meaning: str) -> tuple[str, str]:
    match value:
        case [str() as first, str() as second] if first.strip() and second.strip():
            return first, second
        case _:
            raise row.complaint(f'"{key}" must be a list of two texts: write {meaning}')


def questions_digest(questions: Sequence[TwoTurnQuestion]) -> str:
    """sha256 of the questions in canonical form, in their order."""
    lines = "".join(f"{question.to_line()}\n" for question in questions)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
