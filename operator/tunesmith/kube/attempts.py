"""Attempts: a FineTuneJob or EvalRun works through batch Jobs, one after the other. Pure.

Everything about an attempt is read from its Job and pod: the number and the failures before it
from the Job's labels and annotations, the end from the Job's conditions and the pod's termination
message. A lost status is rebuilt from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from tunesmith.api.objects import Failure, FailureClass
from tunesmith.api.trainer_contract import FAILURE_CLASSES, Reason, TerminationMessage
from tunesmith.kube import pods
from tunesmith.kube.labels import ATTEMPT, COUNTED_FAILURES

Object = dict[str, Any]

#: Retry delays after a failure: doubling from the first to the longest.
LONGEST_DELAY = timedelta(minutes=10)
#: Faults around the job, which are waited for until somebody mends them, and do not count.
WAITING_CLASSES = {FailureClass.USER_ERROR, FailureClass.DATA_UNREACHABLE}


#: Faults that only another spec would mend, and the spec is immutable: no attempt ends otherwise.
FINAL_REASONS = {
    Reason.LOSS_NOT_FINITE,
    Reason.TARGET_MODULES_NOT_FOUND,
    Reason.ADAPTER_NOT_APPLIED,
}


class AttemptState(StrEnum):
    WAITING = "Waiting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class Attempt:
    """One batch Job and the pod that did, or does, its work."""

    number: int
    counted_failures: int
    job_name: str
    state: AttemptState
    created_at: str
    has_pod: bool
    pod_address: str | None = None
    trouble: pods.Trouble | None = None
    message: TerminationMessage | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Remembered:
    """What status says about the attempts so far."""

    number: int
    counted_failures: int


@dataclass(frozen=True)
class Start:
    """Begin an attempt."""

    number: int
    counted_failures: int


@dataclass(frozen=True)
class WaitUntil:
    """Begin the next attempt at a moment."""

    moment: datetime
    number: int


@dataclass(frozen=True)
class GiveUp:
    """No further attempt: the limit is reached."""


@dataclass(frozen=True)
class GoOn:
    """The current attempt is under way, or has succeeded."""


Next = Start | WaitUntil | GiveUp | GoOn


def latest_attempt(
    jobs: list[Object], job_pods: list[Object], known: Failure | None = None
) -> Attempt | None:
    """The attempt with the highest number, or None before the first.

    ``known`` is the failure that status tells of: it explains an attempt whose pod is gone since.
    """
    alive = [job for job in jobs if "deletionTimestamp" not in job["metadata"]]
    if not alive:
        return None
    job = max(alive, key=attempt_number)
    own = [pod for pod in job_pods if _job_uid(pod) == job["metadata"]["uid"]]
    newest = max(own, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    if known and known.attempt != attempt_number(job):
        known = None
    return _attempt(job, newest, known)


def attempt_number(job: Object) -> int:
    return int(job["metadata"]["labels"][ATTEMPT])


def outdated_children(jobs: list[Object], start: Start | None) -> list[tuple[str, str]]:
    """What a new attempt makes superfluous: all but the last failed Job, whose log is of use."""
    if start is None:
        return []
    names = [job["metadata"]["name"] for job in jobs if attempt_number(job) < start.number - 1]
    return [(kind, name) for name in names for kind in ("Job", "ConfigMap")]


def next_step(
    attempt: Attempt | None,
    remembered: Remembered,
    backoff_limit: int,
    first_delay: timedelta,
    now: datetime,
) -> Next:
    """What to do now.

    A fault of spec, data or their source waits, with growing pauses, for as long as it takes to
    mend it and does not count; any other failure counts towards ``backoff_limit``.
    ``remembered`` is what status says, for when the Job was deleted by hand.
    """
    if attempt is None:
        return Start(remembered.number + 1, remembered.counted_failures)
    if attempt.state is not AttemptState.FAILED:
        return GoOn()
    assert attempt.failure is not None
    if attempt.failure.reason in FINAL_REASONS:
        return GiveUp()
    counted = attempt.counted_failures
    if attempt.failure.failure_class not in WAITING_CLASSES:
        counted += 1
    if counted > backoff_limit:
        return GiveUp()
    delay = min(first_delay * 2 ** min(attempt.number - 1, 20), LONGEST_DELAY)
    due = datetime.fromisoformat(attempt.failure.finished_at) + delay
    if now >= due:
        return Start(attempt.number + 1, counted)
    return WaitUntil(due, attempt.number + 1)


def counted_failures(attempt: Attempt) -> int:
    """Failures that count, this attempt's included."""
    own = attempt.failure is not None and attempt.failure.failure_class not in WAITING_CLASSES
    return attempt.counted_failures + int(own)


def _attempt(job: Object, pod: Object | None, known: Failure | None) -> Attempt:
    metadata = job["metadata"]
    number = attempt_number(job)
    common = {
        "number": number,
        "counted_failures": int(metadata.get("annotations", {}).get(COUNTED_FAILURES, 0)),
        "job_name": metadata["name"],
        "created_at": str(metadata["creationTimestamp"]),
        "has_pod": pod is not None,
    }
    end = pods.ending(pod) if pod else None
    message = _parse(end.message) if end else None
    if finished(job, "Complete"):
        if message and message.failure is None:
            return Attempt(**common, state=AttemptState.SUCCEEDED, message=message)
        failure = known or _lost(number, job)
        return Attempt(**common, state=AttemptState.FAILED, failure=failure)
    if reason := finished(job, "Failed"):
        if end is None and known:
            return Attempt(**common, state=AttemptState.FAILED, failure=known)
        failure = _failure(number, reason, job, end, message)
        return Attempt(**common, state=AttemptState.FAILED, message=message, failure=failure)
    if pod and pods.phase(pod) == "Running" and not pods.is_leaving(pod):
        return Attempt(**common, state=AttemptState.RUNNING, pod_address=pods.address(pod))
    if end:
        # The pod has ended and the Job controller has yet to say so.
        return Attempt(**common, state=AttemptState.RUNNING)
    trouble = pods.trouble(pod) if pod else None
    return Attempt(**common, state=AttemptState.WAITING, trouble=trouble)


def finished(job: Object, type_: str) -> str | None:
    """The reason of a terminal condition of the Job, or None."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == type_ and condition["status"] == "True":
            return str(condition.get("reason") or type_)
    return None


def _job_uid(pod: Object) -> str:
    """By uid: a Job that was deleted and made again under its name has other pods."""
    return str(pod["metadata"].get("labels", {}).get("batch.kubernetes.io/controller-uid", ""))


def _parse(text: str) -> TerminationMessage | None:
    try:
        return TerminationMessage.model_validate(json.loads(text))
    except (ValueError, ValidationError):
        return None


def _lost(number: int, job: Object) -> Failure:
    """The Job is complete but its pod's last word is gone.

    The trainer finds the finished result in the output folder and reports it again at once.
    """
    return Failure(
        attempt=number,
        failure_class=FailureClass.USER_ERROR,
        reason="ResultLost",
        message="The pod was deleted before its result was read, and is started again.",
        finished_at=_job_end(job),
    )


def _job_end(job: Object) -> str:
    conditions = job.get("status", {}).get("conditions", [])
    times = [str(each["lastTransitionTime"]) for each in conditions]
    return max(times, default=str(job["metadata"]["creationTimestamp"]))


def _failure(
    number: int,
    job_reason: str,
    job: Object,
    end: pods.Ending | None,
    message: TerminationMessage | None,
) -> Failure:
    finished_at = end.finished_at if end else _job_end(job)
    exit_code = end.exit_code if end else None
    if message and message.failure:
        failure_class, reason = message.failure.failure_class, str(message.failure.reason)
        text = message.failure.message
    else:
        failure_class, reason, text = _unsaid(job_reason, end)
    return Failure(
        attempt=number,
        failure_class=failure_class,
        reason=reason,
        message=text[:2048],
        exit_code=exit_code,
        finished_at=finished_at,
    )


def _unsaid(job_reason: str, end: pods.Ending | None) -> tuple[FailureClass, str, str]:
    """Class, reason and sentence for an end that the trainer could not explain itself."""
    if job_reason == "DeadlineExceeded":
        return (
            FailureClass.DEADLINE_EXCEEDED,
            "DeadlineExceeded",
            "The attempt ran longer than activeDeadlineSeconds. Raise it, or train less.",
        )
    if end is None:
        return (
            FailureClass.PREEMPTED,
            "PodLost",
            "The pod was gone before it ended: its node was lost, or it was deleted.",
        )
    if end.reason == "OOMKilled":
        return (
            FailureClass.OUT_OF_MEMORY,
            Reason.OUT_OF_MEMORY,
            "The container used more memory than resources.memory allows. Raise it, or lower "
            "training.microBatchSize.",
        )
    if end.exit_code == 143:
        return (FailureClass.PREEMPTED, Reason.PREEMPTED, "The pod was told to stop.")
    return (
        FAILURE_CLASSES.get(end.exit_code, FailureClass.INTERNAL),
        Reason.INTERNAL,
        f"The container ended with exit code {end.exit_code} and said nothing: see its log.",
    )
