"""A suite of questions with expected answers, which the model answers in its own words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.api.evalrun import Asked
from tunesmith.api.evaluation_suite import Metric
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
from tunesmith_trainer.evaluate.prompting import MINIMUM_EXAMPLES, SystemPrompt
from tunesmith_trainer.evaluate.sides import Sides
from tunesmith_trainer.failure import TrainerError

MINIMUM_ITEMS = 2
#: Of the sample of examples, where no split says one.
EXAMPLES_SEED = 42


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
        examples = prompt_examples(_read(planned.prompt_examples), EXAMPLES_SEED)
    # A row that is there twice is no further evidence.
    rows = list(dict.fromkeys(rows))
    if len(rows) < MINIMUM_ITEMS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL,
            f"suite {suite.name}: {questions.uri} has {len(rows)} different rows, and at least "
            f"{MINIMUM_ITEMS} are needed: add rows",
        )
    asked = {each.question for each in rows}
    examples = [each for each in examples if each.question not in asked]
    if suite.prompted_base and len(examples) < MINIMUM_EXAMPLES:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL,
            f"suite {suite.name}: promptedBase needs at least {MINIMUM_EXAMPLES} rows that are not "
            f"asked, and there are {len(examples)}: add rows, or remove promptedBase",
        )
    return QuestionSuite.of(
        rows,
        name=suite.name,
        metric=metrics.resolve(suite.metric, [conversation.answer for conversation in rows]),
        examples=examples,
        max_new_tokens=suite.max_new_tokens,
        first=min(suite.max_items, len(rows)),
        chat=chat,
    )


def _read(planned: PlannedQuestions) -> list[Conversation]:
    dataset = PlannedDataset(
        uri=planned.uri, format=DatasetFormat(planned.format), digest=planned.digest
    )
    return read_dataset(sources.dataset_file(planned, "the suite's uri"), dataset)


@dataclass(frozen=True)
class QuestionSuite:
    """Questions that are ready to be asked."""

    name: str
    metric: Metric
    conversations: Sequence[Conversation]
    #: The conversations, rendered: as many, in the same order.
    questions: Sequence[Question]
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

    @classmethod
    def of(
        cls,
        conversations: Sequence[Conversation],
        *,
        metric: Metric,
        max_new_tokens: int,
        chat: ChatFormat,
        **more: Any,
    ) -> QuestionSuite:
        """The suite of these conversations. Raises TrainerError if one cannot be rendered."""
        settings = json.dumps(["generate", max_new_tokens, metric])
        questions = [
            Question(chat.prompt(each.question), each.answer, settings=settings)
            for each in conversations
        ]
        return cls(
            conversations=conversations,
            questions=questions,
            metric=metric,
            max_new_tokens=max_new_tokens,
            chat=chat,
            **more,
        )

    def under(self, prompt: SystemPrompt) -> QuestionSuite:
        """The same questions, each under a system prompt."""
        return self._with([prompt.apply(each) for each in self.conversations], self.first)

    def on(self, conversations: Sequence[Conversation]) -> QuestionSuite:
        """Other questions, asked in the same way."""
        return self._with(conversations, len(conversations))

    def _with(self, conversations: Sequence[Conversation], first: int) -> QuestionSuite:
        return QuestionSuite.of(
            conversations,
            name=self.name,
            metric=self.metric,
            max_new_tokens=self.max_new_tokens,
            first=first,
            chat=self.chat,
            sides=self.sides,
        )

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
