"""Decides what happens next to a FineTuneJob. Pure: no client, no clock, no logger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from tunesmith.api.evaluation_suite import OnInconclusive
from tunesmith.api.job_evaluation import JobPreflight
from tunesmith.api.job_status import FINISHED, FineTuneJobStatus, JobState
from tunesmith.api.reasons import ConditionReason
from tunesmith.finetunejob import expiry, memory, preflight, preparation, review, suspension
from tunesmith.finetunejob.decision import Decision, Object, Observed, Results, results
from tunesmith.finetunejob.defaults import before_anything
from tunesmith.finetunejob.guidance import warnings
from tunesmith.finetunejob.judgement import after_training
from tunesmith.finetunejob.objects import training_job, training_job_name
from tunesmith.finetunejob.preparation_objects import preparation_job
from tunesmith.finetunejob.training import training
from tunesmith.finetunejob.usage import usage
from tunesmith.kube.advance import kstatus, remembered_attempts
from tunesmith.kube.attempts import outdated_children
from tunesmith.kube.conditions import Finding, holds, timestamp, updated
from tunesmith.kube.plan import Plan
from tunesmith.settings import Settings


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What to do about a FineTuneJob, and what its status says."""
    found, base = results(observed), preflight.measured(observed)
    decided = _decide(observed, found, base, settings, now)
    decision = suspension.suspended(decided, observed, found)
    if decision.start:
        # A new attempt starts from nothing: old results would mislead.
        found = replace(found, artifact=None, progress=None)
    status = _status(observed, decision, found, base, now)
    left = expiry.time_left(observed.job, status.conditions, now)
    waits = [each for each in (decision.requeue_after, left) if each is not None]
    return Plan(
        status=status,
        create=list(_children(observed, decision, found, settings)),
        delete=suspension.stopped_children(observed, decision.state),
        obsolete=[
            *outdated_children(observed.jobs, decision.start),
            *outdated_children(observed.preparation_jobs, decision.prepare),
        ],
        suspend=suspension.changes(observed, now),
        requeue_after=min(waits, default=None),
        expired=left is not None and not left,
    )


def _decide(
    observed: Observed,
    found: Results,
    base: JobPreflight | None,
    settings: Settings,
    now: datetime,
) -> Decision:
    """The first stage that is not done says what happens."""
    if first := before_anything(observed.job):
        return first
    data = found.prepared
    if found.artifact:
        judged = after_training(observed, found, found.artifact, settings)
        if judged.start and data is None:
            return preparation.preparing(observed, found, settings, now)
        if judged.start and data:
            first = review.before_training_again(observed, found, found.artifact, data)
            return first or judged
        return judged
    if first := preparation.before_training(observed, found, settings, now):
        return first
    if data and (first := review.before_training(observed, found, data)):
        return first
    if data and (first := preflight.before_training(observed, data, base, settings)):
        return first
    return training(observed, found, settings, now)


def _children(
    observed: Observed, decision: Decision, found: Results, settings: Settings
) -> Iterator[Object]:
    job, data = observed.job, found.prepared
    if decision.prepare:
        yield from preparation_job(job, decision.prepare, settings)
    if decision.start:
        assert data is not None, "nothing is trained before its data is ready"
        fitting = memory.of_next_attempt(observed, data)
        changes = decision.adjustments
        yield from training_job(job, decision.start, data, fitting, settings, changes)
    if decision.eval_run:
        yield decision.eval_run


def _status(
    observed: Observed,
    decision: Decision,
    found: Results,
    base: JobPreflight | None,
    now: datetime,
) -> FineTuneJobStatus:
    job, before, data = observed.job, observed.job.status, found.prepared
    attempts = remembered_attempts(
        observed.attempt, decision.start, before, has_result=found.artifact is not None
    )
    findings = _findings(observed, decision, found, base)
    last = memory.of_last_attempt(observed, data)
    return FineTuneJobStatus(
        **attempts,
        observed_generation=job.metadata.generation,
        state=decision.state,
        conditions=updated(before.conditions, findings, job.metadata.generation, now),
        job_name=training_job_name(job, attempts["attempt"]) if attempts["attempt"] else None,
        progress=found.progress,
        dataset=found.dataset,
        preparation=preparation.remembered(observed, decision, data, now),
        review=review.remembered(job, data, now),
        plan=memory.of_next_attempt(observed, data) if decision.start and data else last,
        usage=usage(observed, suspension.stopped_jobs(observed), now),
        artifact=found.artifact,
        preflight=base,
        evaluation=decision.evaluation,
        output=before.output,
        adjustments=decision.adjustments,
        start_time=before.start_time or timestamp(now),
        completion_time=(before.completion_time or timestamp(now)) if found.artifact else None,
    )


def _findings(
    observed: Observed, decision: Decision, found: Results, base: JobPreflight | None
) -> list[Finding]:
    state, data = decision.state, found.prepared
    findings = [decision.succeeded, decision.ready]
    if state is JobState.SUSPENDED:
        findings += suspension.findings()
    else:
        finished = state in FINISHED
        findings += kstatus(state, decision.succeeded, decision.stalled, finished=finished)
    findings += [expiry.finding(state), preparation.finding(observed, data, decision)]
    further = (review.finding(observed, data), preflight.finding(observed, data, base))
    findings += [each for each in further if each]
    items = _held_out_items(observed, found, base)
    unusual = warnings(observed.job.spec, found.dataset, items)
    if told := [*unusual, *(data.warnings if data else ())]:
        findings.append(holds("Warning", ConditionReason.OUTSIDE_PROVEN_RANGE, " ".join(told)))
    return findings


def _held_out_items(observed: Observed, found: Results, base: JobPreflight | None) -> int | None:
    """How many held-out examples the verdict rests on; None before anybody has counted them."""
    wanted = observed.job.spec.evaluation
    if found.dataset is None:
        return base.items if base else None
    if wanted.on_inconclusive is OnInconclusive.EXTEND:
        return found.dataset.held_out_rows
    return min(found.dataset.held_out_rows, wanted.max_items)
