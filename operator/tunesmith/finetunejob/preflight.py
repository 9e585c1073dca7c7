"""Before anything is trained: can the base model do the task already? Pure.

The design document's test: a prompt that gives correct output on 70 to 80 percent of the held-out
examples says that fine-tuning will likely close the remaining gap.
"""

from __future__ import annotations

from enum import StrEnum

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.job_evaluation import HELD_OUT_SUITE, JobPreflight, Preflight
from tunesmith.api.job_status import JobState
from tunesmith.api.reasons import ConditionReason
from tunesmith.api.sample_size import detectable_points
from tunesmith.finetunejob.decision import Decision, Observed, Prepared, has_begun
from tunesmith.finetunejob.eval_runs import (
    has_failed,
    how_far,
    preflight_name,
    preflight_run,
    trouble,
)
from tunesmith.finetunejob.training import not_ready
from tunesmith.kube.conditions import Finding, fails, holds, is_true, unknown
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings

#: Points between which fine-tuning pays off.
LOWEST = 70.0
HIGHEST = 80.0


class Band(StrEnum):
    BELOW = "BelowBand"
    IN = "InBand"
    ABOVE = "AboveBand"


MEANING = {
    Band.BELOW: (
        "below 70. Fine-tuning a model that cannot do the task yet gives one that fails in a more "
        "specialised way: more data and better prompting come first"
    ),
    Band.IN: "between 70 and 80: fine-tuning will likely close the remaining gap",
    Band.ABOVE: "above 80: it does the task already, and gains will be marginal",
}


def measured(observed: Observed) -> JobPreflight | None:
    """What the base model can do: from the EvalRun, or as it was once seen."""
    run = observed.eval_run(preflight_name(observed.job))
    return (_from_run(run) if run else None) or observed.job.status.preflight


def before_training(
    observed: Observed, data: Prepared, seen: JobPreflight | None, settings: Settings
) -> Decision | None:
    """What to do before the first attempt; None when training may begin, or has begun."""
    wanted = observed.job.spec.evaluation.preflight
    if wanted is Preflight.SKIP or has_begun(observed):
        return None
    if seen:
        required = wanted is Preflight.REQUIRE and _band(seen) is not Band.IN
        return _rejected(seen) if required else None
    run = observed.eval_run(preflight_name(observed.job))
    if run is None:
        message = f"EvalRun {preflight_name(observed.job)} was created."
        return _measuring(message, preflight_run(observed.job, data, settings))
    if waits := trouble(run):
        if has_failed(run) and wanted is Preflight.ADVISE:
            return None
        return _waiting(waits)
    return _measuring(f"EvalRun {run.metadata.name} measures the base model{how_far(run)}.")


def finding(observed: Observed, data: Prepared | None, seen: JobPreflight | None) -> Finding | None:
    """The condition Preflight; None where nobody wants it."""
    if observed.job.spec.evaluation.preflight is Preflight.SKIP:
        return None
    if seen:
        band = _band(seen)
        make = holds if band is Band.IN else fails
        return make("Preflight", band, _sentence(seen))
    run = observed.eval_run(preflight_name(observed.job))
    if waits := trouble(run) if run else None:
        return unknown("Preflight", waits.reason, waits.message)
    if has_begun(observed):
        return unknown("Preflight", ConditionReason.NOT_MEASURED, "Training began without it.")
    if data is None:
        return unknown(
            "Preflight", ConditionReason.NOT_MEASURED, "It follows once the data is ready."
        )
    return unknown(
        "Preflight", ConditionReason.MEASURING, "The base model is asked the held-out examples."
    )


def _from_run(run: EvalRun) -> JobPreflight | None:
    result = next((each for each in run.status.results if each.suite == HELD_OUT_SUITE), None)
    if result is None or not is_true(run.status.conditions, "Succeeded"):
        return None
    return JobPreflight(
        name=run.metadata.name,
        metric=result.metric,
        items=result.items,
        base=result.base,
        prompted_base=result.prompted_base,
    )


def _better(seen: JobPreflight) -> float:
    return max(seen.base, seen.prompted_base if seen.prompted_base is not None else seen.base)


def _band(seen: JobPreflight) -> Band:
    score = _better(seen)
    if score < LOWEST:
        return Band.BELOW
    return Band.IN if score <= HIGHEST else Band.ABOVE


def _sentence(seen: JobPreflight) -> str:
    score = _better(seen)
    if seen.prompted_base is not None and seen.prompted_base > seen.base:
        side = f"under its best system prompt (as it is asked: {seen.base:.1f})"
    elif seen.prompted_base is not None:
        side = f"as it is asked (under its best system prompt: {seen.prompted_base:.1f})"
    else:
        side = "as it is asked"
    return (
        f"The base model has {score:.1f} points of {seen.metric} {side}, {MEANING[_band(seen)]}. "
        f"{seen.items} held-out examples detect {detectable_points(seen.items):g} points."
    )


def _measuring(message: str, eval_run: dict[str, object] | None = None) -> Decision:
    succeeded = unknown("Succeeded", ConditionReason.PREFLIGHT, message)
    return Decision(JobState.PREFLIGHT, succeeded, not_ready([]), eval_run=eval_run)


def _waiting(waits: Trouble) -> Decision:
    return Decision(
        JobState.WAITING,
        succeeded=unknown("Succeeded", waits.reason, waits.message),
        ready=not_ready([]),
        stalled=holds("Stalled", waits.reason, waits.message),
    )


def _rejected(seen: JobPreflight) -> Decision:
    reason = str(_band(seen))
    message = (
        f"Nothing is trained: {_sentence(seen)} To train all the same, apply a job with "
        "evaluation.preflight: Advise."
    )
    return Decision(
        JobState.REJECTED,
        succeeded=fails("Succeeded", reason, message),
        ready=not_ready([]),
        stalled=holds("Stalled", reason, message),
    )
