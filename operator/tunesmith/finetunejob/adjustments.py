"""Training again with one change after a failed verdict: evaluation.onFailure: Retry. Pure.

The changes so far are an annotation of the batch Job that trains with them, so that they are known
from the moment it exists; status shows them, and keeps them for when the Job is gone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.job_evaluation import Adjustment, JobEvaluation, Tunable
from tunesmith.api.training import Training
from tunesmith.kube.attempts import Attempt, job_of
from tunesmith.kube.labels import ADJUSTMENTS, noted

Object = dict[str, Any]

_WRITTEN = TypeAdapter(list[Adjustment])


def annotation(changes: Sequence[Adjustment]) -> dict[str, str]:
    """For the Job that trains with these changes; nothing without any."""
    if not changes:
        return {}
    return {ADJUSTMENTS: json.dumps([each.to_json() for each in changes], separators=(",", ":"))}


def of_attempt(jobs: list[Object], attempt: Attempt, known: list[Adjustment]) -> list[Adjustment]:
    """The changes with which an attempt trains; those ``known`` where a hand has spoilt them."""
    job = job_of(attempt, jobs)
    if ADJUSTMENTS not in job["metadata"].get("annotations", {}):
        return []
    try:
        return _WRITTEN.validate_python(noted(job, ADJUSTMENTS))
    except ValidationError:
        return known


def adjusted(training: Training, changes: Sequence[Adjustment]) -> Training:
    """How training goes with these changes; a later one of the same field counts."""
    fields: dict[str, Any] = {}
    for each in changes:
        match each.field:
            case Tunable.LEARNING_RATE:
                fields["learning_rate"] = each.after
            case Tunable.EPOCHS:
                fields["epochs"] = int(each.after)
    return training.model_copy(update=fields)


def next_change(
    spec: FineTuneJobSpec, so_far: list[Adjustment], judged: JobEvaluation
) -> Adjustment | str:
    """The change to train again with after a failed verdict, or a sentence why there is none."""
    change = _from_recommendation(judged)
    if change is None:
        return "It is not trained again by itself: no field of training would change that."
    if any(each.adapter_digest == change.adapter_digest for each in so_far):
        return "It is not trained again: the last change made the very same adapter."
    if len(so_far) >= spec.evaluation.max_retries:
        return f"It was trained again {_times(len(so_far))}, as evaluation.maxRetries allows."
    tried = [adjusted(spec.training, so_far[:number]) for number in range(len(so_far) + 1)]
    if adjusted(spec.training, [*so_far, change]) in tried:
        return "It is not trained again: the change leads back to what failed before."
    return change


def sentence(change: Adjustment) -> str:
    """For people, while it trains again."""
    return (
        f"The adapter did not pass EvalRun {change.eval_run}. It is trained again with "
        f"{change.field} {change.after:g}, not {change.before:g}: {change.because}."
    )


def _from_recommendation(judged: JobEvaluation) -> Adjustment | None:
    """The recommended change, where one of the spec's fields would do."""
    wanted = judged.recommendation
    if wanted is None or wanted.field is None or judged.adapter_digest is None:
        return None
    if wanted.before is None or wanted.after is None:
        return None
    return Adjustment(
        field=wanted.field,
        before=wanted.before,
        after=wanted.after,
        because=wanted.because,
        eval_run=judged.name,
        adapter_digest=judged.adapter_digest,
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
