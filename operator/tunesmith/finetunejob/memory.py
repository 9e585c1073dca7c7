"""The memory plan from attempt to attempt: one that ran out of memory is followed by a smaller one.

The plan is an annotation of the batch Job that trains with it, so that what follows on a failure is
read from the Job that failed. Pure.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from tunesmith.api.memory import MemoryPlan
from tunesmith.api.objects import Failure, FailureClass
from tunesmith.finetunejob.decision import Observed, Prepared, has_begun
from tunesmith.kube.attempts import job_of
from tunesmith.kube.labels import MEMORY_PLAN, noted
from tunesmith.memory_planner.planning import halve

Object = dict[str, Any]


def annotation(plan: MemoryPlan) -> dict[str, str]:
    """For the Job that trains with this plan."""
    return {MEMORY_PLAN: json.dumps(plan.to_json(), separators=(",", ":"))}


def of_last_attempt(observed: Observed, seen: Prepared | None) -> MemoryPlan | None:
    """How the last attempt fits into memory; before the first, how it will."""
    if observed.attempt:
        job = job_of(observed.attempt, observed.jobs)
        if (written := noted(job, MEMORY_PLAN)) is not None:
            with suppress(ValidationError):
                return MemoryPlan.model_validate(written)
    if has_begun(observed) and observed.job.status.plan:
        return observed.job.status.plan
    return seen.memory if seen else None


def of_next_attempt(observed: Observed, seen: Prepared) -> MemoryPlan:
    """The same plan again, or a smaller one of the same batch when there was too little memory."""
    last = of_last_attempt(observed, seen) or seen.memory
    return (halve(last) or last) if _ran_out_of_memory(observed) else last


def sentence(observed: Observed, seen: Prepared) -> str | None:
    """What the next attempt does otherwise, for people."""
    last, following = of_last_attempt(observed, seen), of_next_attempt(observed, seen)
    if last is None or last == following:
        return None
    attempt = observed.attempt
    number = (attempt.number if attempt else observed.job.status.attempt or 0) + 1
    if last.micro_batch_size == following.micro_batch_size:
        return (
            f"Attempt {number} has activation checkpointing {following.activation_checkpointing}, "
            f"not {last.activation_checkpointing}: slower, in less memory."
        )
    return (
        f"Attempt {number} passes {following.micro_batch_size} sequences at a time, not "
        f"{last.micro_batch_size}, and accumulates {following.gradient_accumulation} passes: the "
        "same batch in less memory."
    )


def _ran_out_of_memory(observed: Observed) -> bool:
    failure = _last_failure(observed)
    return failure is not None and failure.failure_class is FailureClass.OUT_OF_MEMORY


def _last_failure(observed: Observed) -> Failure | None:
    """Of the latest attempt; from status when its Job was deleted."""
    if observed.attempt:
        return observed.attempt.failure
    status = observed.job.status
    told = status.failure
    return told if told and told.attempt == status.attempt else None
