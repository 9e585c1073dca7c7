"""spec.suspend: what runs stops and gives its GPUs back, until it is false again. Pure.

A Job's own ``suspend`` is all that is touched, and it is left to Kueue where the Job waits in a
queue: Kueue starts an admitted Job again at once. Such a Job is deleted instead, which gives its
quota back; the next attempt goes on from the checkpoint. So is an EvalRun that is not done, whose
answers so far are kept.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tunesmith.api.job_status import FINISHED, JobState
from tunesmith.api.reasons import ConditionReason
from tunesmith.finetunejob.decision import Decision, Observed, Results
from tunesmith.finetunejob.eval_runs import is_over
from tunesmith.finetunejob.training import trained
from tunesmith.finetunejob.usage import so_far
from tunesmith.kube.attempts import children_of
from tunesmith.kube.conditions import Finding, fails, holds, unknown
from tunesmith.kube.labels import GPU_SECONDS, QUEUE_NAME, STOPPED
from tunesmith.kube.observed_attempt import is_finished, wants_suspension
from tunesmith.kube.plan import Suspension

Object = dict[str, Any]

MESSAGE = (
    "spec.suspend is true: nothing runs until it is false again. Training goes on from its last "
    "checkpoint then."
)


def suspended(decision: Decision, observed: Observed, found: Results) -> Decision:
    """The decision, unless the job is suspended and not finished: then nothing begins."""
    if not observed.job.spec.suspend or decision.state in FINISHED:
        return decision
    return Decision(
        state=JobState.SUSPENDED,
        # What is trained stays so, also where it was to be trained again.
        succeeded=trained(found.artifact)
        if found.artifact
        else unknown("Succeeded", ConditionReason.SUSPENDED, MESSAGE),
        ready=fails("Ready", ConditionReason.SUSPENDED, MESSAGE),
        adjustments=found.adjustments,
        evaluation=decision.evaluation or observed.job.status.evaluation,
    )


def findings() -> list[Finding]:
    """As a batch Job says it; for tools that follow kstatus nothing moves and nothing is wrong."""
    return [
        fails("Reconciling", ConditionReason.SUSPENDED, MESSAGE),
        fails("Stalled", ConditionReason.SUSPENDED, "Nothing is in the way but spec.suspend."),
        holds("Suspended", ConditionReason.SUSPENDED, MESSAGE),
    ]


def changes(observed: Observed, now: datetime) -> list[Suspension]:
    """The Jobs whose ``suspend`` is not as the spec says; what others suspended is theirs."""
    own = [job for job in _unfinished(observed) if not _is_queued(job)]
    if observed.job.spec.suspend:
        running = [job for job in own if not wants_suspension(job)]
        return [Suspension(_name(job), True, _noted(job, observed, now)) for job in running]
    return [
        Suspension(_name(job), False, {STOPPED: "false"}) for job in own if _is_stopped_by_us(job)
    ]


def stopped_jobs(observed: Observed) -> list[Object]:
    """Jobs in a queue that a suspension deletes."""
    if not observed.job.spec.suspend:
        return []
    return [job for job in _unfinished(observed) if _is_queued(job)]


def stopped_children(observed: Observed, state: JobState) -> list[tuple[str, str]]:
    """What a suspension deletes, by kind and name."""
    if state is not JobState.SUSPENDED:
        return []
    runs = [run.metadata.name for run in observed.eval_runs if not is_over(run)]
    jobs = [child for job in stopped_jobs(observed) for child in children_of(job)]
    return [*jobs, *(("EvalRun", name) for name in runs)]


def _noted(job: Object, observed: Observed, now: datetime) -> dict[str, str]:
    return {GPU_SECONDS: str(so_far(job, observed.pods, now)), STOPPED: "true"}


def _is_stopped_by_us(job: Object) -> bool:
    annotations = job["metadata"].get("annotations", {})
    # The first version noted nothing but what had been used.
    noted = annotations.get(STOPPED, "true" if GPU_SECONDS in annotations else "false")
    return wants_suspension(job) and noted == "true"


def _name(job: Object) -> str:
    return str(job["metadata"]["name"])


def _unfinished(observed: Observed) -> list[Object]:
    return [
        job
        for job in (*observed.preparation_jobs, *observed.jobs)
        if not is_finished(job) and "deletionTimestamp" not in job["metadata"]
    ]


def _is_queued(job: Object) -> bool:
    return QUEUE_NAME in job["metadata"].get("labels", {})
