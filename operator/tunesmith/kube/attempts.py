"""Attempts: a FineTuneJob or EvalRun works through batch Jobs, one after the other. Pure.

Everything about an attempt is read from its Job and pod: the number and the failures before it
from the Job's labels and annotations, the end from the Job's conditions and the pod's termination
message (``observed_attempt``). A lost status is rebuilt from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from tunesmith.api.objects import Failure, FailureClass
from tunesmith.api.trainer_contract import Reason, TerminationMessage
from tunesmith.kube.pods import Leaving, Trouble

Object = dict[str, Any]

#: Retry delays after a failure: doubling from the first to the longest.
LONGEST_DELAY = timedelta(minutes=10)
#: Faults around the job, which are waited for until somebody mends them, and do not count.
WAITING_CLASSES = {FailureClass.USER_ERROR, FailureClass.DATA_UNREACHABLE}
#: What the cluster took away is no failure either; the next attempt goes on where it stopped.
UNCOUNTED_CLASSES = WAITING_CLASSES | {FailureClass.PREEMPTED}

#: Faults that only another spec or other prepared data would mend, and neither changes: no attempt
#: ends otherwise.
FINAL_REASONS = {
    Reason.LOSS_NOT_FINITE,
    Reason.STEP_WITHOUT_ANSWERS,
    Reason.TARGET_MODULES_NOT_FOUND,
    Reason.ADAPTER_NOT_APPLIED,
    Reason.DOES_NOT_FIT,
}


class AttemptState(StrEnum):
    WAITING = "Waiting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class Attempt:
    """One batch Job and the pods that did, or do, its work."""

    number: int
    counted_failures: int
    job_name: str
    state: AttemptState
    #: When it was begun, or begun again after a suspension.
    since: str
    has_pod: bool
    #: Of the pod that speaks for all.
    pod_address: str | None = None
    trouble: Trouble | None = None
    #: One of its pods, if it is being ended.
    leaving: Leaving | None = None
    message: TerminationMessage | None = None
    failure: Failure | None = None
    #: The queue in which Kueue lets it wait.
    queue: str | None = None


@dataclass(frozen=True)
class Remembered:
    """What status says about the attempts so far."""

    number: int
    counted_failures: int
    #: Of whichever attempt failed last.
    failure: Failure | None = None


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


def attempt_number(job: Object) -> int:
    """By its name, which no hand can change."""
    return int(job["metadata"]["name"].rpartition("-")[2])


def job_of(attempt: Attempt, jobs: list[Object]) -> Object:
    """Its batch Job, which was observed with it."""
    return next(each for each in jobs if each["metadata"]["name"] == attempt.job_name)


def outdated_children(jobs: list[Object], start: Start | None) -> list[tuple[str, str]]:
    """What the newest attempt makes superfluous: all but the failed Job before it, whose log is of
    use. From what is there, as a deletion may have failed when the attempt was begun."""
    newest = start.number if start else max(map(attempt_number, jobs), default=0)
    alive = [job for job in jobs if "deletionTimestamp" not in job["metadata"]]
    outdated = [job for job in alive if attempt_number(job) < newest - 1]
    return [child for job in outdated for child in children_of(job)]


def children_of(job: Object) -> list[tuple[str, str]]:
    """A Job and what was made with it, by kind and name."""
    is_group = job.get("spec", {}).get("completionMode") == "Indexed"
    kinds = ("Job", "Service") if is_group else ("Job",)
    return [(kind, job["metadata"]["name"]) for kind in kinds]


def next_step(
    attempt: Attempt | None,
    remembered: Remembered,
    backoff_limit: int,
    first_delay: timedelta,
    now: datetime,
) -> Next:
    """What to do now.

    A fault of spec, data or their source waits, with growing pauses, for as long as it takes to
    mend it and does not count, nor does what the cluster took away; any other failure counts
    towards ``backoff_limit``.
    ``remembered`` is what status says, for when the Job was deleted by hand. Whoever tidies up
    finished Jobs does not set going again what was given up.
    """
    if attempt is None:
        counted, failure = remembered.counted_failures, remembered.failure
        has_failed = failure is not None and failure.attempt == remembered.number
        if failure and has_failed and _is_last(failure, counted, backoff_limit):
            return GiveUp()
        return Start(remembered.number + 1, counted)
    if attempt.state is not AttemptState.FAILED:
        return GoOn()
    assert attempt.failure is not None
    counted = counted_failures(attempt)
    if _is_last(attempt.failure, counted, backoff_limit):
        return GiveUp()
    delay = min(first_delay * 2 ** min(attempt.number - 1, 20), LONGEST_DELAY)
    due = datetime.fromisoformat(attempt.failure.finished_at) + delay
    if now >= due:
        return Start(attempt.number + 1, counted)
    return WaitUntil(due, attempt.number + 1)


def _is_last(failure: Failure, counted: int, backoff_limit: int) -> bool:
    return failure.reason in FINAL_REASONS or counted > backoff_limit


def counted_failures(attempt: Attempt) -> int:
    """Failures that count, this attempt's included."""
    failure = attempt.failure
    own = failure is not None and failure.failure_class not in UNCOUNTED_CLASSES
    return attempt.counted_failures + int(own)
