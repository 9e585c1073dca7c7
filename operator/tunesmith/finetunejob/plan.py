"""Decides what happens next to a FineTuneJob. Pure: no client, no clock, no logger."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tunesmith.api.evaluation_suite import OnInconclusive
from tunesmith.api.finetunejob import FineTuneJobStatus, JobState
from tunesmith.api.job_evaluation import JobPreflight
from tunesmith.finetunejob import preflight
from tunesmith.finetunejob.decision import Decision, Observed, Results, results
from tunesmith.finetunejob.guidance import warnings
from tunesmith.finetunejob.judgement import after_training
from tunesmith.finetunejob.objects import training_job, training_job_name
from tunesmith.finetunejob.training import training
from tunesmith.kube.advance import kstatus, remembered_attempts
from tunesmith.kube.attempts import outdated_children
from tunesmith.kube.conditions import Finding, holds, timestamp, updated
from tunesmith.kube.plan import Plan
from tunesmith.settings import Settings


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What to do about a FineTuneJob, and what its status says."""
    found, base = results(observed), preflight.measured(observed)
    decision = _decide(observed, found, base, settings, now)
    start = decision.start
    if start:
        # A new attempt starts from nothing: old results would mislead.
        found = replace(found, artifact=None, progress=None)
    trained = training_job(observed.job, start, settings, decision.adjustments) if start else ()
    return Plan(
        status=_status(observed, decision, found, base, now),
        create=[*trained, *([decision.eval_run] if decision.eval_run else ())],
        delete=outdated_children(observed.jobs, start),
        requeue_after=decision.requeue_after,
    )


def _decide(
    observed: Observed,
    found: Results,
    base: JobPreflight | None,
    settings: Settings,
    now: datetime,
) -> Decision:
    if found.artifact:
        return after_training(observed, found, found.artifact, settings)
    if first := preflight.before_training(observed, base, settings):
        return first
    return training(observed, found, settings, now)


def _status(
    observed: Observed,
    decision: Decision,
    found: Results,
    base: JobPreflight | None,
    now: datetime,
) -> FineTuneJobStatus:
    job, before = observed.job, observed.job.status
    memory = remembered_attempts(
        observed.attempt, decision.start, before, has_result=found.artifact is not None
    )
    findings = _findings(observed, decision, found, base)
    return FineTuneJobStatus(
        **memory,
        observed_generation=job.metadata.generation,
        state=decision.state,
        conditions=updated(before.conditions, findings, job.metadata.generation, now),
        job_name=training_job_name(job, memory["attempt"]) if memory["attempt"] else None,
        progress=found.progress,
        dataset=found.dataset,
        artifact=found.artifact,
        preflight=base,
        evaluation=decision.evaluation,
        adjustments=decision.adjustments,
        start_time=before.start_time or timestamp(now),
        completion_time=(before.completion_time or timestamp(now)) if found.artifact else None,
    )


def _findings(
    observed: Observed, decision: Decision, found: Results, base: JobPreflight | None
) -> list[Finding]:
    finished = decision.state in {JobState.READY, JobState.REJECTED, JobState.FAILED}
    findings = [
        decision.succeeded,
        decision.ready,
        *kstatus(decision.state, decision.succeeded, decision.stalled, finished=finished),
    ]
    if told := preflight.finding(observed, base):
        findings.append(told)
    items = _held_out_items(observed, found, base)
    if unusual := warnings(observed.job.spec.lora, found.dataset, items):
        findings.append(holds("Warning", "OutsideProvenRange", " ".join(unusual)))
    return findings


def _held_out_items(observed: Observed, found: Results, base: JobPreflight | None) -> int | None:
    """How many held-out examples the verdict rests on; None before anybody has counted them."""
    wanted = observed.job.spec.evaluation
    if found.dataset is None:
        return base.items if base else None
    if wanted.on_inconclusive is OnInconclusive.EXTEND:
        return found.dataset.held_out_rows
    return min(found.dataset.held_out_rows, wanted.max_items)
