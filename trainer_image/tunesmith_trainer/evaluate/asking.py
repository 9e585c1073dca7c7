"""Asking every side of a suite for as many answers as the gates need, and comparing them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from tunesmith.api.evalrun import EvaluationPhase, SuiteResult
from tunesmith.api.evaluation_suite import OnInconclusive
from tunesmith.api.trainer_contract import PlannedSuite

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.evaluate import looks, prompting
from tunesmith_trainer.evaluate.base_results import BaseResults
from tunesmith_trainer.evaluate.corpus import compare_answers
from tunesmith_trainer.evaluate.generation import generate
from tunesmith_trainer.evaluate.measured import Answer, AskableSuite, Measured, Question, Side
from tunesmith_trainer.evaluate.mt_bench.suite import MtBenchSuite
from tunesmith_trainer.evaluate.opening import OpenSuite
from tunesmith_trainer.evaluate.questions import QuestionSuite
from tunesmith_trainer.evaluate.sides import Sides
from tunesmith_trainer.evaluate.suite_result import in_doubt, suite_result
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.progress import ProgressBoard

log = logging.getLogger(__name__)

#: Questions that are asked at a time.
BLOCK = 4096


@dataclass
class Counter:
    """Counts the answers of all sides onto the board."""

    board: ProgressBoard
    total: int = 0
    done: int = 0

    def expect(self, answers: int) -> None:
        """So many more answers are to come, or fewer than was said before."""
        self.total += answers

    def add(self, answers: int) -> None:
        self.done += answers
        shown = min(self.done, self.total)
        self.board.evaluation(
            items_done=shown,
            items_total=self.total,
            percent=100 * shown // self.total if self.total else 0,
        )
        log.info("%d of %d answers", self.done, self.total)


@dataclass
class Sheet:
    """The answers of one side so far, and where more come from."""

    side: Side
    suite: AskableSuite
    #: Who is really asked: the prompted base is the base model, asked something else.
    asked: Side
    answers: list[Answer] = field(default_factory=list)


class Answering(Protocol):
    """Whatever has questions and answers to them."""

    @property
    def questions(self) -> Sequence[Question]: ...

    def answers(self, side: Side, start: int, stop: int) -> list[Answer]: ...


@dataclass(frozen=True)
class Turn:
    """One turn of all conversations of MT-Bench."""

    sides: Sides
    prompts: Sequence[str]
    max_new_tokens: int

    @cached_property
    def questions(self) -> list[Question]:
        settings = json.dumps(["generate", self.max_new_tokens])
        return [Question(each, "", settings=settings) for each in self.prompts]

    def answers(self, side: Side, start: int, stop: int) -> list[Answer]:
        """Without scores: the answers of both sides are rated in one go."""
        with self.sides.on(side) as model:
            texts = generate(model, self.prompts[start:stop], self.max_new_tokens)
        return [Answer(text, None) for text in texts]


@dataclass(frozen=True)
class Asking:
    """Asks the suites of one evaluation, the base model only for what it was never asked."""

    sides: Sides
    chat: ChatFormat
    base_results: BaseResults
    counter: Counter
    board: ProgressBoard

    def expect(self, suite: OpenSuite, planned: PlannedSuite) -> None:
        """Announce how many answers a suite will take, so that progress only ever grows."""
        sides = self._sides()
        if isinstance(suite, MtBenchSuite):
            talks = len(sides) * suite.answers_wanted
            self.counter.expect(talks + suite.judgements_wanted(sides))
            return
        self.counter.expect(len(sides) * suite.first)
        wanted = planned.suite.prompted_base
        if wanted and isinstance(suite, QuestionSuite):
            trials = prompting.trials(wanted.system_prompts, suite.examples)
            self.counter.expect(suite.first + trials)

    def _sides(self) -> list[Side]:
        return [Side.BASE, *([Side.ADAPTER] if self.sides.adapter else [])]

    def measure(self, suite: OpenSuite, planned: PlannedSuite) -> tuple[Measured, SuiteResult]:
        """All sides' answers to a suite, and what they say."""
        if isinstance(suite, MtBenchSuite):
            measured = self._converse(suite)
            return measured, suite_result(measured, looks.confidence(1))
        return self._ask(suite.between(self.sides), planned)

    def _converse(self, suite: MtBenchSuite) -> Measured:
        sides = self._sides()

        def ask(side: Side, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
            self.board.evaluation(phase=PHASES[side])
            turn = Turn(self.sides, prompts, max_new_tokens)
            if side is Side.BASE:
                return [each.text for each in self._base_answers(turn, 0, len(prompts))]
            return [each.text for each in turn.answers(side, 0, len(prompts))]

        def judged(answers: int) -> None:
            self.board.evaluation(phase=EvaluationPhase.JUDGING)
            self.counter.add(answers)

        return suite.measure(sides, ask, self.chat, self.sides.context, judged)

    def _ask(self, suite: AskableSuite, planned: PlannedSuite) -> tuple[Measured, SuiteResult]:
        """Answers until no gate that wants more is in doubt.

        Every look at the figures has its share of the error, whether it was needed or not.
        """
        if isinstance(suite, QuestionSuite):
            suite.require_room()
        choice = self._choose_prompt(suite, planned)
        sheets = self._sheets(suite, choice)
        bounds = [
            gate.minimum_difference
            for gate in planned.gates
            if gate.on_inconclusive is OnInconclusive.EXTEND
        ]
        stops = looks.schedule(suite.first, len(suite.questions), bool(bounds))
        confidence = looks.confidence(len(stops))
        looked_at = 0
        for stop in stops:
            self.counter.expect(len(sheets) * max(0, stop - max(suite.first, looked_at)))
            looked_at = stop
            for sheet in sheets:
                self._fill(sheet, stop)
            measured = self._measured(suite, sheets, stop, choice)
            result = suite_result(measured, confidence)
            if not in_doubt(result, bounds):
                break
        return measured, result

    def _sheets(self, suite: AskableSuite, choice: prompting.ChosenPrompt | None) -> list[Sheet]:
        sheets = [Sheet(Side.BASE, suite, Side.BASE)]
        if choice and choice.best.text:
            assert isinstance(suite, QuestionSuite)
            sheets.append(Sheet(Side.PROMPTED_BASE, suite.under(choice.best), Side.BASE))
        elif choice:
            self.counter.expect(-suite.first)
        if self.sides.adapter:
            sheets.append(Sheet(Side.ADAPTER, suite, Side.ADAPTER))
        return sheets

    def _fill(self, sheet: Sheet, stop: int) -> None:
        """Answers up to ``stop``."""
        suite, start = sheet.suite, len(sheet.answers)
        self.board.evaluation(phase=PHASES[sheet.side])
        # In blocks, so that a pod that is taken away loses one of them at most; the same on both
        # sides, so that their batches are made alike.
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            sheet.answers += (
                self._base_answers(suite, first, last)
                if sheet.asked is Side.BASE
                else suite.answers(sheet.asked, first, last)
            )

    def _base_answers(self, suite: Answering, start: int, stop: int) -> list[Answer]:
        """What the base model is known to answer is not asked again; the rest is, and kept."""
        known = self.base_results.recall(suite.questions)
        answers = []
        for question in suite.questions[start:stop]:
            if question.key not in known:
                break
            answers.append(known[question.key])
        self.counter.add(len(answers))
        first = start + len(answers)
        if first == stop:
            return answers
        new = suite.answers(Side.BASE, first, stop)
        keys = [question.key for question in suite.questions[first:stop]]
        self.base_results.remember(suite.questions, dict(zip(keys, new, strict=True)))
        return answers + new

    def _choose_prompt(
        self, suite: AskableSuite, planned: PlannedSuite
    ) -> prompting.ChosenPrompt | None:
        wanted = planned.suite.prompted_base
        if wanted is None or not isinstance(suite, QuestionSuite):
            return None

        def score(
            prompt: prompting.SystemPrompt, conversations: Sequence[Conversation]
        ) -> float | None:
            trial = suite.on(conversations).under(prompt)
            try:
                trial.require_room()
                suite.under(prompt).require_room()
            except TrainerError as error:
                log.info("base model, %s: left out (%s)", prompt.name, error)
                self.counter.expect(-len(conversations))
                return None
            sheet = Sheet(Side.PROMPTED_BASE, trial, Side.BASE)
            self._fill(sheet, len(trial.questions))
            compared = compare_answers(
                suite.metric, trial.questions, sheet.answers, sheet.answers, looks.confidence(1)
            )
            return compared.base

        return prompting.choose(wanted.system_prompts, suite.examples, score)

    def _measured(
        self,
        suite: AskableSuite,
        sheets: Sequence[Sheet],
        count: int,
        choice: prompting.ChosenPrompt | None,
    ) -> Measured:
        return Measured(
            name=suite.name,
            metric=suite.metric,
            questions=suite.questions[:count],
            answers={sheet.side: list(sheet.answers) for sheet in sheets},
            asked=suite.asked(count),
            approximate=suite.approximate and count < len(suite.questions),
            best_prompt=choice.best.text or None if choice else None,
            tried_prompts=[(each.name, points) for each, points in choice.tried] if choice else [],
        )


PHASES = {
    Side.BASE: EvaluationPhase.BASE,
    Side.PROMPTED_BASE: EvaluationPhase.PROMPTED_BASE,
    Side.ADAPTER: EvaluationPhase.ADAPTER,
}
