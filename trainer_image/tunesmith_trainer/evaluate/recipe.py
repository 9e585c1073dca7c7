"""The evaluation recipe, from the plan to paired results. Reads from top to bottom."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from tunesmith.api import digests
from tunesmith.api.evalrun import EvaluationPhase
from tunesmith.api.trainer_contract import EvaluationOutcome, EvaluationPlan, Reason

from tunesmith_trainer import machine, sources
from tunesmith_trainer.data.chat import ChatFormat, load_chat_format
from tunesmith_trainer.evaluate.base_results import BaseResults, environment
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.output import open_output
from tunesmith_trainer.progress import ProgressBoard

log = logging.getLogger(__name__)


def evaluate(plan: EvaluationPlan, board: ProgressBoard) -> EvaluationOutcome:
    """Ask both sides the same questions and compare the answers."""
    board.evaluation(phase=EvaluationPhase.LOADING)
    candidate = candidate_folder(plan)
    for folder in (plan.output, plan.base_results):
        if folder is not None:
            open_output(folder).require_writable()
    base_folder = sources.model_folder(plan.base_model)
    base_model_digest = digests.base_model_digest(base_folder)
    chat = load_chat_format(base_folder, plan.base_model.uri)

    from tunesmith_trainer.evaluate.asking import Asking, Counter
    from tunesmith_trainer.evaluate.canary import CANARY_ITEMS, require_effect
    from tunesmith_trainer.evaluate.loading import load_sides
    from tunesmith_trainer.evaluate.opening import judges_of, open_suite, texts_of
    from tunesmith_trainer.evaluate.results_folder import write_results
    from tunesmith_trainer.evaluate.sides import quieten

    quieten()
    suites = [open_suite(planned, chat) for planned in plan.suites]
    for judge in judges_of(suites):
        judge.require_answer()
    machine.use_all_processors()
    counter = Counter(board)
    texts = [text for suite in suites for text in texts_of(suite, CANARY_ITEMS)]
    sides = load_sides(plan, base_folder, candidate, chat, counter.add, texts)
    if judged := plan.adapter or plan.merged_model:
        require_effect(sides, texts, judged.uri)

    kept = base_results(plan, base_model_digest, base_folder, chat)
    asking = Asking(sides, chat, kept, counter, board)
    planned = list(zip(suites, plan.suites, strict=True))
    for each in planned:
        asking.expect(*each)
    measured = [asking.measure(*each) for each in planned]
    board.evaluation(phase=EvaluationPhase.SCORING)
    outcome = EvaluationOutcome(
        digest=plan.digest,
        base_model_digest=base_model_digest,
        chat_template_digest=template_digest(chat),
        results=[result for _, result in measured],
    )
    if plan.output is not None:
        everything = [one for one, _ in measured]
        report = write_results(plan.output, plan, outcome, everything)
        outcome = outcome.model_copy(update={"report": report})
    board.evaluation(phase=EvaluationPhase.DONE, percent=100)
    return outcome


def base_results(
    plan: EvaluationPlan, base_model_digest: str, base_folder: Path, chat: ChatFormat
) -> BaseResults:
    device = machine.device()
    kind = str(machine.compute_type(device))
    return BaseResults(
        open_output(plan.base_results) if plan.base_results else None,
        base_model_digest,
        environment(base_folder, chat.stop_tokens, machine.device_name(device), kind),
    )


def candidate_folder(plan: EvaluationPlan) -> Path | None:
    """The folder of what is judged, checked against its digest."""
    if plan.adapter is not None:
        return sources.adapter_folder(plan.adapter, str(plan.digest))
    if plan.merged_model is None:
        return None
    folder = sources.model_folder(plan.merged_model, "mergedModel.uri")
    found = digests.base_model_digest(folder)
    if found != plan.digest:
        raise TrainerError(
            Reason.ADAPTER_CHANGED,
            f"{plan.merged_model.uri} holds a model with digest {found}, not {plan.digest}: it was "
            "changed after it was merged. Merge it again, or name the new digest",
        )
    return folder


def template_digest(chat: ChatFormat) -> str:
    """sha256 of the chat template's text."""
    text = str(chat.tokenizer.chat_template)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
