"""A FineTuneJob with what the policies of its namespace give it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState
from tunesmith.api.output import OutputStore
from tunesmith.api.reasons import ConditionReason
from tunesmith.finetunejob.decision import Decision
from tunesmith.finetunejob.training import not_ready
from tunesmith.kube.conditions import holds, unknown
from tunesmith.kube.labels import OUTPUT, noted
from tunesmith.kube.policies import Defaults, placed, queued

Object = dict[str, Any]

NO_OUTPUT = (
    "spec.output is missing, and no TuningPolicy says where jobs of this namespace store their "
    "adapters: delete this job and apply it with output.uri, for example pvc://adapters, or ask "
    "the platform team for a default, with which it goes on by itself."
)


def with_defaults(job: FineTuneJob, given: Defaults, batch_jobs: Iterable[Object]) -> FineTuneJob:
    """The job as if it said what it is given; what it says itself stays.

    Its output never moves, as what was stored has to be found again: it is in status, and on the
    batch Jobs, from which a status that was lost has it.
    """
    spec, status = job.spec, job.status
    if spec.output is None:
        output = status.output or _noted_output(batch_jobs) or given.output
        status = status.model_copy(update={"output": output})
    changes = {
        "pod_template": placed(spec.pod_template, given.trainer),
        "active_deadline_seconds": spec.active_deadline_seconds or given.deadline_seconds,
    }
    return job.model_copy(
        update={
            "metadata": queued(job.metadata, given.queue),
            "spec": spec.model_copy(update=changes),
            "status": status,
        }
    )


def annotation(job: FineTuneJob) -> dict[str, str]:
    """For the batch Jobs of a job whose output a policy gave."""
    output = job.status.output
    return {OUTPUT: json.dumps(output.to_json())} if output else {}


def before_anything(job: FineTuneJob) -> Decision | None:
    """What to do about a job without an output; None when it has one."""
    if job.output:
        return None
    return Decision(
        JobState.WAITING,
        succeeded=unknown("Succeeded", ConditionReason.NO_OUTPUT, NO_OUTPUT),
        ready=not_ready([]),
        stalled=holds("Stalled", ConditionReason.NO_OUTPUT, NO_OUTPUT),
    )


def _noted_output(batch_jobs: Iterable[Object]) -> OutputStore | None:
    for each in batch_jobs:
        if written := noted(each, OUTPUT):
            with suppress(ValidationError):
                return OutputStore.model_validate(written)
    return None
