"""The evaluation recipe, from the plan to paired results. Reads from top to bottom."""

from __future__ import annotations

import json
import logging

from tunesmith.api import digests
from tunesmith.api.evalrun import EvaluationPhase, SuiteResult
from tunesmith.api.trainer_contract import (
    EvaluationOutcome,
    EvaluationPlan,
    PlannedSource,
)

from tunesmith_trainer import artifact, machine, sources
from tunesmith_trainer.data.chat import load_chat_format
from tunesmith_trainer.evaluate import metrics
from tunesmith_trainer.evaluate.items import SuiteItems, read_suite, require_room
from tunesmith_trainer.evaluate.statistics import compare
from tunesmith_trainer.progress import ProgressBoard

log = logging.getLogger(__name__)


def evaluate(plan: EvaluationPlan, board: ProgressBoard) -> EvaluationOutcome:
    """Ask both sides the same questions and compare the answers."""
    board.evaluation(phase=EvaluationPhase.LOADING)
    suites = [read_suite(planned) for planned in plan.suites]
    adapter_folder = sources.adapter_folder(plan.adapter, plan.adapter_digest)
    if plan.output is not None:
        artifact.require_writable(sources.mounted(plan.output), plan.output.uri)
    base_folder = sources.model_folder(plan.base_model)
    base_model_digest = digests.base_model_digest(base_folder)
    chat = load_chat_format(base_folder, plan.base_model.uri)

    from tunesmith_trainer.evaluate import sides
    from tunesmith_trainer.evaluate.canary import require_effect
    from tunesmith_trainer.model import context_length, load_base_model

    sides.quieten()
    machine.use_all_processors()
    device = machine.device()
    base = load_base_model(base_folder, plan.base_model.uri, machine.compute_type(device), device)
    base.generation_config.eos_token_id = sorted(chat.stop_tokens)
    adapted = sides.attach_adapter(base, adapter_folder, plan.adapter.uri)
    require_effect(
        adapted,
        [chat.example(conversation) for conversation in suites[0].conversations],
        plan.adapter.uri,
    )

    counter = AnswerCounter(board, total=2 * sum(len(suite.conversations) for suite in suites))
    model = sides.WatchedModel(adapted, chat, counter.add)
    results = []
    for suite in suites:
        prompts = suite.prompts(chat)
        require_room(prompts, chat, suite, context_length(base))
        board.evaluation(phase=EvaluationPhase.BASE)
        base_answers = sides.answers(model, suite, prompts, with_adapter=False)
        board.evaluation(phase=EvaluationPhase.ADAPTER)
        adapter_answers = sides.answers(model, suite, prompts, with_adapter=True)
        board.evaluation(phase=EvaluationPhase.SCORING)
        results.append(judge(suite, prompts, base_answers, adapter_answers, plan.output))

    board.evaluation(phase=EvaluationPhase.DONE, percent=100)
    return EvaluationOutcome(
        adapter_digest=plan.adapter_digest, base_model_digest=base_model_digest, results=results
    )


class AnswerCounter:
    """Counts the answers of both sides onto the board."""

    def __init__(self, board: ProgressBoard, total: int) -> None:
        self._board = board
        self._total = total
        self._done = 0
        self._show()

    def add(self, answers: int) -> None:
        self._done += answers
        self._show()
        log.info("%d of %d answers", self._done, self._total)

    def _show(self) -> None:
        self._board.evaluation(
            items_done=self._done,
            items_total=self._total,
            percent=100 * self._done // self._total,
        )


def judge(
    suite: SuiteItems,
    prompts: list[str],
    base_answers: list[str],
    adapter_answers: list[str],
    output: PlannedSource | None,
) -> SuiteResult:
    """Score both sides, note every item if somebody asked for them, and compare."""
    expected = suite.expected
    base = [metrics.score(suite.metric, *pair) for pair in zip(expected, base_answers, strict=True)]
    adapter = [
        metrics.score(suite.metric, *pair) for pair in zip(expected, adapter_answers, strict=True)
    ]
    if output is not None:
        names = ("prompt", "expected", "baseAnswer", "adapterAnswer", "baseScore", "adapterScore")
        columns = zip(prompts, expected, base_answers, adapter_answers, base, adapter, strict=True)
        rows = [json.dumps(dict(zip(names, row, strict=True))) for row in columns]
        with artifact.output_errors(output.uri):
            artifact.write_whole(
                sources.mounted(output) / f"{suite.name}.jsonl", "".join(f"{row}\n" for row in rows)
            )
    comparison = compare(base, adapter)
    log.info(
        "suite %s: %s base %.2f, adapter %.2f, difference %.2f [%.2f, %.2f] over %d items",
        suite.name,
        suite.metric,
        comparison.base,
        comparison.adapter,
        comparison.difference,
        comparison.interval.lower,
        comparison.interval.upper,
        len(expected),
    )
    return SuiteResult(
        suite=suite.name,
        metric=suite.metric,
        items=len(expected),
        base=comparison.base,
        adapter=comparison.adapter,
        difference=comparison.difference,
        confidence_interval=comparison.interval,
        dataset_digest=suite.digest,
    )
