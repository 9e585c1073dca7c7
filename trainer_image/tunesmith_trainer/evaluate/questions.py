"""A suite of questions with expected answers, which the model answers in its own words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tunesmith.api.evalrun import Asked
from tunesmith.api.evaluation_suite import Metric, QuestionFormat
from tunesmith.api.objects import DatasetFormat
from tunesmith.api.trainer_contract import PlannedDataset, PlannedQuestions, PlannedSuite, Reason

from tunesmith_trainer import sources
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.dataset import read_dataset
from tunesmith_trainer.data.formats import Conversation, rows_digest
from tunesmith_trainer.data.split import prompt_examples, split_and_deduplicate
from tunesmith_trainer.evaluate import metrics
from tunesmith_trainer.evaluate.generation import generate, require_room
from tunesmith_trainer.evaluate.measured import Answer, Question, Side, prompts_digest
from tunesmith_trainer.evaluate.prompting import SystemPrompt
from tunesmith_trainer.evaluate.sides import Sides
from tunesmith_trainer.failure import TrainerError

MINIMUM_ITEMS = 2


def read_questions(planned: PlannedSuite, chat: ChatFormat) -> QuestionSuite:
    """The rows of a suite's files, checked against their digests."""
    suite, questions = planned.suite, planned.questions
    assert questions is not None
    rows = _read(questions)
    examples: list[Conversation] = []
    if questions.held_out:
        split = split_and_deduplicate(rows, questions.held_out)
        rows, examples = split.held_out, prompt_examples(split.train, questions.held_out.seed)
    if planned.prompt_examples:
        examples = _read(planned.prompt_examples)
    if len(rows) < MINIMUM_ITEMS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL,
            f"suite {suite.name}: {questions.uri} has {len(rows)} rows, and at least "
            f"{MINIMUM_ITEMS} are needed: add rows",
        )
    asked = set(rows)
    return QuestionSuite(
        name=suite.name,
        metric=metrics.resolve(suite.metric, [conversation.answer for conversation in rows]),
        conversations=rows,
        examples=[each for each in examples if each not in asked],
        max_new_tokens=suite.max_new_tokens,
        first=min(suite.max_items, len(rows)),
        chat=chat,
    )


def _read(planned: PlannedQuestions) -> list[Conversation]:
    formats = {
        QuestionFormat.MESSAGES: DatasetFormat.MESSAGES,
        QuestionFormat.ALPACA: DatasetFormat.ALPACA,
    }
    dataset = PlannedDataset(
        uri=planned.uri,
        path=planned.path,
        format=formats.get(planned.format, DatasetFormat.AUTO),
        digest=planned.digest,
    )
    return read_dataset(sources.dataset_file(dataset), dataset)


@dataclass(frozen=True)
class QuestionSuite:
    """Questions that are ready to be asked."""

    name: str
    metric: Metric
    conversations: Sequence[Conversation]
    max_new_tokens: int
    first: int
    chat: ChatFormat
    #: Rows that nobody is judged by, to choose the base model's prompt on.
    examples: Sequence[Conversation] = ()
    approximate: bool = False
    #: Who is asked; the questions are known without.
    sides: Sides | None = None

    def between(self, sides: Sides) -> QuestionSuite:
        """The same suite, ready to be asked."""
        return replace(self, sides=sides)

    @cached_property
    def questions(self) -> list[Question]:
        settings = json.dumps(["generate", self.max_new_tokens, self.metric])
        return [
            Question(self.chat.prompt(each.question), each.answer, settings=settings)
            for each in self.conversations
        ]

    def under(self, prompt: SystemPrompt) -> QuestionSuite:
        """The same questions, each under a system prompt."""
        return replace(self, conversations=[prompt.apply(each) for each in self.conversations])

    def on(self, conversations: Sequence[Conversation]) -> QuestionSuite:
        """Other questions, asked in the same way."""
        return replace(self, conversations=list(conversations), first=len(conversations))

    def require_room(self) -> None:
        """Raises TrainerError if a question is too long for the model."""
        require_room(
            [each.prompt for each in self.questions],
            self.chat,
            self.name,
            self.max_new_tokens,
            self._asked().context,
        )

    def asked(self, count: int) -> Asked:
        return Asked(
            data=rows_digest(self.conversations[:count]),
            prompts=prompts_digest(self.questions[:count]),
        )

    def answers(self, side: Side, start: int, stop: int) -> list[Answer]:
        questions = self.questions[start:stop]
        with self._asked().on(side) as model:
            texts = generate(model, [each.prompt for each in questions], self.max_new_tokens)
        return [
            Answer(text, metrics.score(self.metric, question.expected, text))
            for question, text in zip(questions, texts, strict=True)
        ]

    def _asked(self) -> Sides:
        if self.sides is None:
            raise RuntimeError(f"suite {self.name} has nobody to ask")
        return self.sides
