"""Once the data is ready: one attempt after another, until one trains. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tunesmith.api.job_evaluation import Adjustment
from tunesmith.api.job_status import Artifact, JobState, Progress, TrainingPhase
from tunesmith.api.reasons import ConditionReason
from tunesmith.finetunejob import memory
from tunesmith.finetunejob.adjustments import sentence
from tunesmith.finetunejob.decision import Decision, Observed, Results
from tunesmith.kube.advance import Stage, advance, waits_for_pod
from tunesmith.kube.attempts import Start, counted_failures
from tunesmith.kube.conditions import Finding, fails, holds, unknown
from tunesmith.settings import Settings

STATES = {
    Stage.PENDING: JobState.PENDING,
    Stage.QUEUED: JobState.QUEUED,
    Stage.RUNNING: JobState.PREPARING,
    Stage.WAITING: JobState.WAITING,
    Stage.RETRYING: JobState.RETRYING,
    Stage.FAILED: JobState.FAILED,
}


def training(observed: Observed, found: Results, settings: Settings, now: datetime) -> Decision:
    """What to do while there is no result."""
    job, changes = observed.job, found.adjustments
    step = advance(observed.attempt, job.status, job.spec.backoff_limit, None, settings, now)
    decision = Decision(
        state=STATES[step.stage],
        succeeded=step.succeeded,
        ready=not_ready(changes),
        stalled=step.stalled,
        start=step.start,
        adjustments=changes,
        requeue_after=step.requeue_after,
    )
    if step.stage is Stage.RUNNING:
        return _with_phase(decision, found.progress)
    changed = memory.sentence(observed, found.prepared) if found.prepared else None
    follows = step.start or step.stage is Stage.RETRYING
    return _saying(decision, changed) if changed and follows else decision


def _saying(decision: Decision, sentence: str) -> Decision:
    """With a further sentence."""
    succeeded = decision.succeeded
    told = replace(succeeded, message=f"{succeeded.message} {sentence}")
    return replace(decision, succeeded=told)


def again(observed: Observed, changes: list[Adjustment], settings: Settings) -> Decision:
    """A new attempt after a failed verdict, with the last of these changes."""
    attempt, status = observed.attempt, observed.job.status
    number = max(attempt.number if attempt else 0, status.attempt or 0) + 1
    counted = counted_failures(attempt) if attempt else status.counted_failures or 0
    return Decision(
        state=JobState.PENDING,
        succeeded=unknown("Succeeded", ConditionReason.PENDING, waits_for_pod(number)),
        ready=not_ready(changes),
        start=Start(number, counted),
        adjustments=changes,
        requeue_after=settings.progress_interval,
    )


def trained(artifact: Artifact) -> Finding:
    """There is something to be judged."""
    return holds("Succeeded", ConditionReason.TRAINED, f"The adapter is stored in {artifact.uri}.")


def not_ready(changes: list[Adjustment]) -> Finding:
    """Why there is nothing to serve yet."""
    if changes:
        return fails("Ready", ConditionReason.TRAINED_AGAIN, sentence(changes[-1]))
    return fails("Ready", ConditionReason.NOT_TRAINED, "There is no adapter yet.")


def _with_phase(decision: Decision, progress: Progress | None) -> Decision:
    """The trainer's own word for what it is doing, or the last one that was heard."""
    match progress.phase if progress else None:
        case TrainingPhase.TRAINING:
            assert progress is not None
            state = JobState.TRAINING
            message = f"Training: step {progress.step or 0} of {progress.total_steps or '?'}."
        case TrainingPhase.SAVING | TrainingPhase.DONE:
            state, message = JobState.SAVING, "The adapter is being stored."
        case _:
            state, message = JobState.PREPARING, "The model is being loaded."
    return replace(decision, state=state, succeeded=unknown("Succeeded", str(state), message))
