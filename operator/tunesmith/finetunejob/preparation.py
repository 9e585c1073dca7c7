"""Before a GPU is asked for: the data is made ready on a CPU, and the memory is planned. Pure."""

from __future__ import annotations

from datetime import datetime

from tunesmith.api.job_status import JobState, Preparation
from tunesmith.api.reasons import ConditionReason
from tunesmith.finetunejob.decision import Decision, Observed, Prepared, Results, is_spoilt
from tunesmith.finetunejob.training import not_ready
from tunesmith.kube.advance import Advance, Stage, advance, missing_config_map, remembered_attempts
from tunesmith.kube.attempts import AttemptState, Start
from tunesmith.kube.conditions import Finding, fails, holds, timestamp, unknown
from tunesmith.settings import Settings

STATES = {
    Stage.PENDING: JobState.PENDING,
    Stage.QUEUED: JobState.PENDING,
    Stage.RUNNING: JobState.PREPARING,
    Stage.WAITING: JobState.WAITING,
    Stage.RETRYING: JobState.RETRYING,
    Stage.FAILED: JobState.FAILED,
}


def before_training(
    observed: Observed, found: Results, settings: Settings, now: datetime
) -> Decision | None:
    """What to do about the data; None when it is ready, or an attempt already trains on it."""
    if found.prepared or observed.trains:
        return None
    return preparing(observed, found, settings, now)


def preparing(observed: Observed, found: Results, settings: Settings, now: datetime) -> Decision:
    """One attempt after another, until the data is ready."""
    step = _step(observed, settings, now)
    state, succeeded = STATES[step.stage], step.succeeded
    if step.stage is Stage.RUNNING or _begins(observed, step):
        message = "The data is being prepared and the memory planned, on a CPU."
        state, succeeded = (
            JobState.PREPARING,
            unknown("Succeeded", ConditionReason.PREPARING, message),
        )
    return Decision(
        state=state,
        succeeded=succeeded,
        ready=not_ready(found.adjustments),
        stalled=step.stalled,
        prepare=step.start,
        adjustments=found.adjustments,
        requeue_after=step.requeue_after,
        evaluation=observed.job.status.evaluation,
    )


def _begins(observed: Observed, step: Advance) -> bool:
    """Whether a pod without a GPU is about to start: that is told as preparing, too."""
    attempt = observed.preparation
    is_stopped = attempt is not None and attempt.state is AttemptState.SUSPENDED
    return step.stage is Stage.PENDING and not is_stopped and not is_spoilt(observed)


def finding(observed: Observed, seen: Prepared | None, decision: Decision) -> Finding:
    """The condition Prepared."""
    if seen:
        rows = f"{seen.dataset.train_rows} examples to train on, {seen.dataset.held_out_rows} held"
        message = f"{rows} out, in {seen.uri}."
        return holds("Prepared", ConditionReason.DATA_READY, message)
    if observed.trains:
        return unknown("Prepared", ConditionReason.NOT_KNOWN, "Training began; see status.dataset.")
    if decision.stalled:
        return fails("Prepared", decision.stalled.reason, decision.stalled.message)
    return unknown("Prepared", decision.succeeded.reason, decision.succeeded.message)


def remembered(
    observed: Observed, decision: Decision, seen: Prepared | None, now: datetime
) -> Preparation:
    """What the next status says about the attempts to prepare."""
    before = observed.prepared_before
    memory = remembered_attempts(
        observed.preparation, decision.prepare, before, has_result=seen is not None
    )
    number = memory["attempt"]
    return Preparation(
        **memory,
        job_name=preparation_job_name(observed.job.metadata.name, number) if number else None,
        start_time=before.start_time or (timestamp(now) if number else None),
        uri=seen.uri if seen else None,
        base_model_revision=seen.base_model_revision if seen else None,
        warnings=seen.warnings if seen else [],
    )


def preparation_job_name(job: str, attempt: int) -> str:
    return f"{job}-prepare-{attempt}"


def _step(observed: Observed, settings: Settings, now: datetime) -> Advance:
    job, before = observed.job, observed.prepared_before
    if is_spoilt(observed):
        attempt = observed.preparation
        number = max(attempt.number if attempt else 0, before.attempt or 0) + 1
        message = f"The prepared data was changed; attempt {number} prepares it anew."
        return Advance(
            Stage.PENDING,
            unknown("Succeeded", ConditionReason.PENDING, message),
            start=Start(number, before.counted_failures or 0),
            requeue_after=settings.progress_interval,
        )
    missing = missing_config_map(observed.missing_config_map, job.metadata)
    return advance(observed.preparation, before, job.spec.backoff_limit, missing, settings, now)
