"""Asking every side of a suite for as many answers as the gates need, and comparing them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunesmith.api.evalrun import EvaluationPhase, GroupDifference, SuiteResult
from tunesmith.api.evaluation_suite import Metric, OnInconclusive
from tunesmith.api.sample_size import RATING_RANGE, detectable_points, detectable_rating
from tunesmith.api.trainer_contract import PlannedSuite
from tunesmith.api.verdict import Verdict, judge

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.evaluate import looks, prompting
from tunesmith_trainer.evaluate.base_results import BaseResults
from tunesmith_trainer.evaluate.corpus import compare_answers, rated_on_both_sides
from tunesmith_trainer.evaluate.generation import generate
from tunesmith_trainer.evaluate.measured import Answer, AskableSuite, Measured, Question, Side
from tunesmith_trainer.evaluate.mt_bench.suite import MtBenchSuite
from tunesmith_trainer.evaluate.opening import OpenSuite
from tunesmith_trainer.evaluate.questions import QuestionSuite
from tunesmith_trainer.evaluate.sides import Sides
from tunesmith_trainer.evaluate.statistics import Comparison, group_differences
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.progress import ProgressBoard

log = logging.getLogger(__name__)

#: Subjects that status names; the report has them all.
FALLEN = 3


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
            questions = [
                Question(each, "", settings=f"generate {max_new_tokens}") for each in prompts
            ]

            def ask_from(first: int) -> list[Answer]:
                with self.sides.on(side) as model:
                    texts = generate(model, prompts[first:], max_new_tokens)
                # Rated later: both sides in one run, by the same judge.
                return [Answer(text, None) for text in texts]

            if side is not Side.BASE:
                return [each.text for each in ask_from(0)]
            known = self._base_answers(questions, 0, len(questions), ask_from)
            return [each.text for each in known]

        def judged(answers: int) -> None:
            self.board.evaluation(phase=EvaluationPhase.JUDGING)
            self.counter.add(answers)

        return suite.measure(sides, ask, self.chat, self.sides.context, judged)

    def _ask(self, suite: AskableSuite, planned: PlannedSuite) -> tuple[Measured, SuiteResult]:
        """Answers until no gate that wants more is in doubt.

        Every look at the figures has its share of the error, whether it was needed or not.
        """
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

    def _sheets(self, suite: AskableSuite, choice: prompting.Choice | None) -> list[Sheet]:
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
        if sheet.asked is Side.BASE:
            sheet.answers += self._base_answers(
                suite.questions, start, stop, lambda first: suite.answers(Side.BASE, first, stop)
            )
        else:
            sheet.answers += suite.answers(sheet.asked, start, stop)

    def _base_answers(
        self,
        questions: Sequence[Question],
        start: int,
        stop: int,
        ask_from: Callable[[int], list[Answer]],
    ) -> list[Answer]:
        """What the base model is known to answer is not asked again; the rest is, and kept."""
        known = self.base_results.recall(questions)
        answers = []
        for question in questions[start:stop]:
            if question.key not in known:
                break
            answers.append(known[question.key])
        self.counter.add(len(answers))
        first = start + len(answers)
        if first == stop:
            return answers
        new = ask_from(first)
        keys = [question.key for question in questions[first:stop]]
        self.base_results.remember(questions, dict(zip(keys, new, strict=True)))
        return answers + new

    def _choose_prompt(self, suite: AskableSuite, planned: PlannedSuite) -> prompting.Choice | None:
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
        choice: prompting.Choice | None,
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


def in_doubt(result: SuiteResult, bounds: Sequence[float]) -> bool:
    """Whether some gate that may ask for more items does not know yet."""
    interval = result.confidence_interval
    return interval is not None and any(
        judge(bound, interval) is Verdict.INCONCLUSIVE for bound in bounds
    )


def suite_result(measured: Measured, confidence: float) -> SuiteResult:
    """What status says of a suite.

    The adapter has to beat the base model as it is and under its best prompt: the comparison with
    the smaller difference counts, so whoever beats that one beats both.
    """
    answers = measured.answers
    if measured.failed_percent == 100:
        return unrated(measured, confidence)
    candidate = answers.get(Side.ADAPTER, answers[Side.BASE])
    compared = {
        side: compare_answers(
            measured.metric, measured.questions, answers[side], candidate, confidence
        )
        for side in (Side.BASE, Side.PROMPTED_BASE)
        if side in answers
    }
    hardest, comparison = min(compared.items(), key=lambda each: each[1].difference)
    prompted = compared.get(Side.PROMPTED_BASE)
    result = SuiteResult(
        suite=measured.name,
        metric=measured.metric,
        items=comparison.items,
        base=compared[Side.BASE].base,
        prompted_base=prompted.base if prompted else None,
        confidence=confidence,
        detectable=detectable(measured.metric, comparison.items),
        approximate=measured.approximate,
        failed_percent=measured.failed_percent,
        win_percent=measured.win_percent,
        asked=measured.asked,
    )
    if Side.ADAPTER not in answers:
        return result
    log_comparison(measured, comparison)
    return result.model_copy(
        update={
            "adapter": comparison.adapter,
            "difference": comparison.difference,
            "confidence_interval": comparison.interval,
            "fallen": fallen(measured, hardest),
        }
    )


def unrated(measured: Measured, confidence: float) -> SuiteResult:
    """The judge gave not one rating: there is nothing to compare, and the gate stays in doubt."""
    return SuiteResult(
        suite=measured.name,
        metric=measured.metric,
        items=0,
        base=0,
        confidence=confidence,
        detectable=RATING_RANGE,
        failed_percent=measured.failed_percent,
        asked=measured.asked,
    )


def detectable(metric: Metric, items: int) -> float:
    return detectable_rating(items) if metric is Metric.RATING else detectable_points(items)


def fallen(measured: Measured, base: Side) -> list[GroupDifference]:
    """The subjects that fell most, if any fell."""
    rated = rated_on_both_sides(
        measured.questions, measured.answers[base], measured.answers[Side.ADAPTER]
    )
    groups = group_differences(
        [float(before.score or 0) for _, before, _ in rated],
        [float(after.score or 0) for _, _, after in rated],
        [question.group for question, _, _ in rated],
    )
    return [each for each in groups if each.difference < 0][:FALLEN]


def log_comparison(measured: Measured, comparison: Comparison) -> None:
    log.info(
        "%s: base %.1f, adapter %.1f, difference %+.1f [%+.1f, %+.1f] on %d items",
        measured.name,
        comparison.base,
        comparison.adapter,
        comparison.difference,
        comparison.interval.lower,
        comparison.interval.upper,
        comparison.items,
    )
