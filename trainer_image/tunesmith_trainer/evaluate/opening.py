"""From the plan of a suite to a suite that can be asked.

Everything is read and checked here, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tunesmith.api.evaluation_suite import QuestionFormat
from tunesmith.api.trainer_contract import PlannedDataset, PlannedQuestions, PlannedSuite, Reason

from tunesmith_trainer import sources
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.rows import read_rows
from tunesmith_trainer.evaluate.benchmark import benchmark_suite
from tunesmith_trainer.evaluate.choices import choice_suite, is_choice, read_choices
from tunesmith_trainer.evaluate.harness import HarnessSuite
from tunesmith_trainer.evaluate.mt_bench.judge import JudgeClient
from tunesmith_trainer.evaluate.mt_bench.suite import MtBenchSuite, read_mt_bench
from tunesmith_trainer.evaluate.questions import QuestionSuite, read_questions
from tunesmith_trainer.failure import TrainerError

OpenSuite = QuestionSuite | HarnessSuite | MtBenchSuite


def open_suite(planned: PlannedSuite, chat: ChatFormat) -> OpenSuite:
    """The suite of a plan. Raises TrainerError for whatever is wrong with its files."""
    suite = planned.suite
    if suite.benchmark:
        data = sources.mounted(planned.benchmark_data) if planned.benchmark_data else None
        return benchmark_suite(suite.name, suite.benchmark, data)
    assert planned.questions is not None
    path = file_of(planned.questions)
    if suite.mt_bench:
        return read_mt_bench(suite.name, suite.mt_bench, path, suite.max_new_tokens)
    if holds_choices(planned.questions, path):
        require_no_split(planned.questions)
        choices = read_choices(path, planned.questions.uri, planned.questions.digest)
        return choice_suite(suite.name, choices, suite.max_items)
    return read_questions(planned, chat)


def require_no_split(questions: PlannedQuestions) -> None:
    """A FineTuneJob cannot train on multiple-choice rows, and so holds none of them out."""
    if questions.held_out:
        raise TrainerError(
            Reason.DATASET_MALFORMED,
            f"{questions.uri} holds multiple-choice questions, and heldOut is only used with "
            "conversations: remove dataset.heldOut",
        )


def file_of(planned: PlannedQuestions) -> Path:
    return sources.dataset_file(PlannedDataset(uri=planned.uri, path=planned.path))


def holds_choices(planned: PlannedQuestions, path: Path) -> bool:
    if planned.format is not QuestionFormat.AUTO:
        return planned.format is QuestionFormat.MULTIPLE_CHOICE
    return any(is_choice(row) for row in islice(read_rows(path), 1))


def texts_of(suite: OpenSuite) -> list[str]:
    """Texts on which an adapter should make a difference."""
    if isinstance(suite, MtBenchSuite):
        return [question.turns[0] for question in suite.questions]
    return [question.prompt + question.expected for question in suite.questions]


def judges_of(suites: Sequence[OpenSuite]) -> list[JudgeClient]:
    """Whoever rates answers, to be tried before a model is loaded."""
    return [suite.judge for suite in suites if isinstance(suite, MtBenchSuite)]
