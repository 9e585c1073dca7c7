"""Multiple-choice questions of one's own: which letter does the model hold for the most likely?

Rows: {"question": "...", "choices": ["...", "..."], "answer": 0 or "A", "subject": "..."}.
"""

from __future__ import annotations

import string
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.benchmarks.tasks import lm_eval_version
from tunesmith_trainer.data.formats import text_of
from tunesmith_trainer.data.rows import Row, read_rows
from tunesmith_trainer.evaluate.harness import HarnessSuite, canonical, digest_of, items_of
from tunesmith_trainer.evaluate.stratified import in_turn
from tunesmith_trainer.failure import TrainerError

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

LETTERS = string.ascii_uppercase
#: Fewer have no spread, and so no interval.
MINIMUM_ROWS = 2
SHAPE = '{"question": "...", "choices": ["...", "..."], "answer": "A"}'


@dataclass(frozen=True)
class Choice:
    """One question. ``answer`` is the number of the right choice, from 0."""

    question: str
    choices: list[str]
    answer: int
    subject: str = ""

    @property
    def prompt(self) -> str:
        """As MMLU asks (arXiv:2009.03300): the question, the choices with letters, Answer:."""
        lettered = [
            f"{letter}. {text}" for letter, text in zip(LETTERS, self.choices, strict=False)
        ]
        return "\n".join([self.question, *lettered, "Answer:"])


def read_choices(path: Path, uri: str, digest: str | None = None) -> list[Choice]:
    """Every row, checked. Raises TrainerError for the first that is not right."""
    choices = [choice_from(row) for row in read_rows(path)]
    if len(choices) < MINIMUM_ROWS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL if choices else Reason.DATASET_EMPTY,
            f"{uri} has {len(choices)} rows, and at least {MINIMUM_ROWS} are needed: write one "
            f"{SHAPE} per line",
        )
    if digest not in {None, rows_digest(choices)}:
        raise TrainerError(
            Reason.DATASET_CHANGED,
            f"{uri} no longer holds the rows with digest {digest}: restore the file, or start a "
            "new run on the new rows",
        )
    return choices


def rows_digest(choices: list[Choice]) -> str:
    """sha256 of the rows in canonical form, in their order."""
    return digest_of(canonical(asdict(choice)) for choice in choices)


def choice_from(row: Row) -> Choice:
    """Read one row, or complain about it."""
    question = text_of(row, row.fields, "question", "")
    choices = row.fields.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise row.complaint(f'"choices" must be a list of 2 to {len(LETTERS)} texts: write {SHAPE}')
    for number, text in enumerate(choices):
        if not isinstance(text, str) or not text.strip():
            raise row.complaint(f"choices[{number}] must be text in quotes, and not empty")
    if len(set(choices)) < len(choices):
        raise row.complaint("two choices are equal, so that there is no one right letter")
    subject = row.fields.get("subject") or ""
    if not isinstance(subject, str):
        raise row.complaint('"subject" must be text; leave it out if there is none')
    return Choice(question, choices, answer_from(row, len(choices)), subject)


def answer_from(row: Row, choices: int) -> int:
    """The number of the right choice, given as a number from 0 or as a letter."""
    match row.fields.get("answer"):
        case bool():
            number = -1
        case int(given):
            number = given
        case str(given) if len(given.strip()) == 1:
            number = LETTERS.find(given.strip().upper())
        case _:
            number = -1
    if not 0 <= number < choices:
        raise row.complaint(
            f'"answer" must be a number from 0 to {choices - 1} or a letter from A to '
            f"{LETTERS[choices - 1]}, the right one of the choices"
        )
    return number


def choice_suite(name: str, choices: list[Choice], max_items: int) -> HarnessSuite:
    """A suite of the questions: in their order, or with the subjects in turn if they have some."""
    items = items_of(choice_task(name, choices), "acc", lambda row: str(row["subject"]))
    if any(choice.subject for choice in choices):
        items = in_turn(items, subject=lambda item: item.question.group)
    return HarnessSuite(
        name=name,
        metric=Metric.ACCURACY,
        items=items,
        first=min(max_items, len(items)),
        approximate=False,
        task=f"multiple choice (0-shot, lm-eval {lm_eval_version()})",
    )


def choice_task(name: str, choices: list[Choice]) -> ConfigurableTask:
    """Functions, never texts, say what is asked: lm-eval runs texts as templates."""
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    rows = Dataset.from_list([{**asdict(choice), "prompt": choice.prompt} for choice in choices])

    def letters(row: dict[str, Any]) -> list[str]:
        return list(LETTERS[: len(row["choices"])])

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda: DatasetDict({"test": rows}),
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": lambda row: row["prompt"],
            "doc_to_choice": letters,
            "doc_to_target": lambda row: row["answer"],
            "num_fewshot": 0,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    )
