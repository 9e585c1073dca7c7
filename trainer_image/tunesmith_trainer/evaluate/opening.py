"""From the plan of a suite to a suite that can be asked.

Everything is read and checked here, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.api.evaluation_suite import Metric, QuestionFormat
from tunesmith.api.trainer_contract import PlannedQuestions, PlannedSuite, Reason

from tunesmith_trainer import sources
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.formats import asks_choices
from tunesmith_trainer.evaluate.benchmark import benchmark_suite
from tunesmith_trainer.evaluate.choices import choice_suite, read_choices
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
        require_plain(planned)
        choices = read_choices(path, planned.questions.uri, planned.questions.digest)
        return choice_suite(suite.name, choices, suite.max_items)
    return read_questions(planned, chat)


def require_plain(planned: PlannedSuite) -> None:
    """What makes sense for conversations only must not be set for multiple-choice questions."""
    assert planned.questions is not None
    suite = planned.suite
    wrong = [
        name
        for name, is_set in (
            ("dataset.heldOut", planned.questions.held_out is not None),
            ("promptedBase", suite.prompted_base is not None),
            ("metric", suite.metric not in (Metric.AUTO, Metric.ACCURACY)),
        )
        if is_set
    ]
    if wrong:
        raise TrainerError(
            Reason.DATASET_MALFORMED,
            f"suite {suite.name}: {planned.questions.uri} holds multiple-choice questions, which "
            f"are scored by the most likely letter: remove {' and '.join(wrong)}",
        )


def file_of(planned: PlannedQuestions) -> Path:
    return sources.dataset_file(planned, "the suite's uri")


def holds_choices(planned: PlannedQuestions, path: Path) -> bool:
    if planned.format is not QuestionFormat.AUTO:
        return planned.format is QuestionFormat.MULTIPLE_CHOICE
    return asks_choices(path)


def texts_of(suite: OpenSuite, count: int) -> list[str]:
    """The first texts of a suite, on which an adapter should make a difference."""
    if isinstance(suite, MtBenchSuite):
        return [question.turns[0] for question in suite.questions[:count]]
    return [question.prompt + question.expected for question in suite.questions[:count]]


def judges_of(suites: Sequence[OpenSuite]) -> list[JudgeClient]:
    """Whoever rates answers, to be tried before a model is loaded."""
    return [suite.judge for suite in suites if isinstance(suite, MtBenchSuite)]
