"""What an object that works through attempts does next, and how that reads. Pure.

FineTuneJob and EvalRun differ in what an attempt does, not in how attempts follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TypedDict

from tunesmith.api.objects import AttemptStatus, ConditionStatus, Failure, ObjectMeta
from tunesmith.api.reasons import ConditionReason
from tunesmith.kube.attempts import (
    WAITING_CLASSES,
    Attempt,
    AttemptState,
    GiveUp,
    GoOn,
    Remembered,
    Start,
    WaitUntil,
    counted_failures,
    next_step,
)
from tunesmith.kube.conditions import Finding, fails, holds, timestamp, unknown
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings

#: A Job makes its pod within a second or two, when it may.
LONGEST_WITHOUT_POD = timedelta(seconds=30)
#: A kubelet that answers kills what is left when a pod's time to end is over.
LONGEST_AFTER_DUE = timedelta(seconds=30)


class Stage(Enum):
    """Where the object stands while it has no result."""

    PENDING = auto()
    QUEUED = auto()
    RUNNING = auto()
    WAITING = auto()
    RETRYING = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Advance:
    """The stage, and what is said and done about it."""

    stage: Stage
    succeeded: Finding
    #: Nothing moves until somebody does something; the sentence says what.
    stalled: Finding | None = None
    #: An attempt to create now.
    start: Start | None = None
    requeue_after: timedelta | None = None


def advance(
    attempt: Attempt | None,
    before: AttemptStatus,
    backoff_limit: int,
    missing: Trouble | None,
    settings: Settings,
    now: datetime,
) -> Advance:
    """The next step of an object without a result.

    ``missing`` is something that the attempt's pod needs and that its status does not tell.
    """
    remembered = Remembered(before.attempt or 0, before.counted_failures or 0, before.failure)
    match next_step(attempt, remembered, backoff_limit, settings.first_retry_delay, now):
        case Start() as start:
            succeeded = unknown("Succeeded", ConditionReason.PENDING, waits_for_pod(start.number))
            return Advance(Stage.PENDING, succeeded, None, start, settings.progress_interval)
        case WaitUntil() as wait:
            return _wait(_failure_of(attempt), wait, now)
        case GiveUp():
            return _give_up(attempt.failure if attempt else before.failure)
        case GoOn():
            assert attempt is not None
            unsaid = missing or _no_pod(attempt, now) or _not_ending(attempt, now)
            return _under_way(attempt, unsaid, settings)


def _no_pod(attempt: Attempt, now: datetime) -> Trouble | None:
    """A Job that may not make its pod says so in its Events only."""
    age = now - datetime.fromisoformat(attempt.since)
    may_not_yet = attempt.state is AttemptState.SUSPENDED
    if attempt.has_pod or may_not_yet or age < LONGEST_WITHOUT_POD:
        return None
    return Trouble(
        ConditionReason.NO_POD,
        f"The Job {attempt.job_name} could not create its pod: a quota, an admission policy or an "
        f"unknown serviceAccountName or priorityClassName of podTemplate may be in the way. "
        f"`kubectl describe job {attempt.job_name}` says which.",
    )


def _not_ending(attempt: Attempt, now: datetime) -> Trouble | None:
    """A node that does not answer says nothing of its pods, and they stay as they were."""
    leaving = attempt.leaving
    if leaving is None or now - datetime.fromisoformat(leaving.due) < LONGEST_AFTER_DUE:
        return None
    return Trouble(
        ConditionReason.POD_NOT_ENDING,
        f"The pod {leaving.pod} should have ended by {leaving.due}, and its node {leaving.node} "
        f"has not said that it did: `kubectl get node {leaving.node}` shows whether it answers. "
        f"Where the machine is gone for good, `kubectl delete node {leaving.node}`, and another "
        "pod follows by itself; it does, too, when the node comes back.",
    )


def _under_way(attempt: Attempt, missing: Trouble | None, settings: Settings) -> Advance:
    if attempt.state is AttemptState.RUNNING:
        succeeded = unknown(
            "Succeeded", ConditionReason.RUNNING, f"Attempt {attempt.number} is running."
        )
        return Advance(Stage.RUNNING, succeeded, requeue_after=settings.progress_interval)
    if attempt.state is AttemptState.SUSPENDED and attempt.queue:
        message = f"Attempt {attempt.number} waits in the queue {attempt.queue} for its turn."
        succeeded = unknown("Succeeded", ConditionReason.QUEUED, message)
        return Advance(Stage.QUEUED, succeeded, requeue_after=settings.progress_interval)
    if trouble := missing or attempt.trouble:
        return Advance(
            Stage.WAITING,
            unknown("Succeeded", trouble.reason, trouble.message),
            holds("Stalled", trouble.reason, trouble.message),
            requeue_after=settings.progress_interval,
        )
    message = waits_for_pod(attempt.number)
    if attempt.state is AttemptState.SUSPENDED:
        message = f"Attempt {attempt.number} waits until its Job {attempt.job_name} is resumed."
    succeeded = unknown("Succeeded", ConditionReason.PENDING, message)
    return Advance(Stage.PENDING, succeeded, requeue_after=settings.progress_interval)


def waits_for_pod(number: int) -> str:
    """The same from when the attempt is made until its pod runs: one status, so one write."""
    return f"Attempt {number} waits for its pod to start."


def _wait(failure: Failure, wait: WaitUntil, now: datetime) -> Advance:
    message = (
        f"{failure.message} Attempt {failure.attempt} failed; attempt {wait.number} follows by "
        f"itself at {timestamp(wait.moment)}."
    )
    waits = failure.failure_class in WAITING_CLASSES
    return Advance(
        Stage.WAITING if waits else Stage.RETRYING,
        fails("Succeeded", failure.reason, message),
        holds("Stalled", failure.reason, message) if waits else None,
        requeue_after=max(wait.moment - now, timedelta(seconds=0.1)),
    )


def _give_up(failure: Failure | None) -> Advance:
    assert failure is not None
    message = (
        f"{failure.message} Attempt {failure.attempt} failed and no other follows: delete this "
        "object and apply it again, mended, or once the cause is gone."
    )
    return Advance(
        Stage.FAILED,
        fails("Succeeded", failure.reason, message),
        holds("Stalled", failure.reason, message),
    )


def _failure_of(attempt: Attempt | None) -> Failure:
    assert attempt is not None
    assert attempt.failure is not None
    return attempt.failure


def missing_config_map(name: str | None, metadata: ObjectMeta) -> Trouble | None:
    """A pod that waits for a ConfigMap does not say so in its status; this does."""
    if name is None:
        return None
    return Trouble(
        ConditionReason.CONFIG_MAP_NOT_FOUND,
        f"The ConfigMap {name} of the dataset does not exist in namespace {metadata.namespace}. "
        "Create it; the pod starts by itself then.",
    )


class AttemptFields(TypedDict):
    """The fields of a status that remember attempts."""

    attempt: int
    counted_failures: int
    failure: Failure | None


def remembered_attempts(
    attempt: Attempt | None, start: Start | None, before: AttemptStatus, *, has_result: bool
) -> AttemptFields:
    """What the next status remembers of the attempts; after a result nothing fails any more.

    Only a newer attempt than the remembered one counts then: a result of its own.
    """
    is_newer = attempt is not None and attempt.number > (before.attempt or 0)
    if has_result and before.attempt and not is_newer:
        return {
            "attempt": before.attempt,
            "counted_failures": before.counted_failures or 0,
            "failure": before.failure,
        }
    number, counted = before.attempt or 0, before.counted_failures or 0
    if start:
        number, counted = start.number, start.counted_failures
    elif attempt:
        number, counted = attempt.number, counted_failures(attempt)
    failure = (attempt.failure if attempt else None) or before.failure
    return {"attempt": number, "counted_failures": counted, "failure": failure}


def kstatus(
    state: str, succeeded: Finding, stalled: Finding | None, *, finished: bool
) -> list[Finding]:
    """Reconciling and Stalled, as tools that follow kstatus read them."""
    if finished or stalled:
        reconciling = fails("Reconciling", state, "Nothing is left to do.")
        if stalled and succeeded.status is not ConditionStatus.TRUE:
            reconciling = fails("Reconciling", state, "Waits; see the condition Stalled.")
    else:
        reconciling = holds("Reconciling", state, succeeded.message)
    return [
        reconciling,
        stalled or fails("Stalled", ConditionReason.PROGRESSING, "Nothing is in the way."),
    ]
