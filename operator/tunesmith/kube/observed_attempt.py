"""Reads an attempt from its Job and the pods that did, or do, its work. Pure.

A Job of several pods is one attempt: the first of them speaks for all as long as nothing is wrong,
and whichever failed first says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tunesmith.api.objects import AttemptStatus, Failure, FailureClass
from tunesmith.api.reasons import ConditionReason
from tunesmith.api.trainer_contract import FAILURE_CLASSES, Outcome, Reason, TerminationMessage
from tunesmith.kube import pods
from tunesmith.kube.attempts import Attempt, AttemptState, attempt_number, job_of
from tunesmith.kube.conditions import raw_condition
from tunesmith.kube.labels import COUNTED_FAILURES, QUEUE_NAME, noted_number
from tunesmith.kube.parsing import json_of_a_pod

Object = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
LONGEST_LAST_LINE = 500


@dataclass(frozen=True)
class _Ended:
    """A pod that ended, and its last word."""

    pod: Object
    end: pods.Ending
    message: TerminationMessage | None

    @property
    def rank(self) -> tuple[int, str]:
        """Which of several endings explains the failure of all.

        A pod that the cluster took away comes first: its peers fail because of it. Those that were
        told to stop come last: they were told because another had failed.
        """
        if pods.is_disrupted(self.pod):
            return 0, self.end.finished_at
        told_to_stop = failure_of(self.end, self.message)[0] is FailureClass.PREEMPTED
        return (2 if told_to_stop else 1), self.end.finished_at


def latest_attempt(
    jobs: list[Object],
    job_pods: list[Object],
    before: AttemptStatus | None = None,
    outcome: Outcome | None = None,
) -> Attempt | None:
    """The attempt with the highest number; None when there is none, or it was deleted by hand.

    ``before`` is what status tells of: a Job of an earlier attempt, which was kept for its log, is
    not taken for the one that is gone. The failure in it explains an attempt whose pod is gone.
    ``outcome`` is what a pod that succeeds tells of; None where its end says enough.
    """
    before = before or AttemptStatus()
    alive = [job for job in jobs if "deletionTimestamp" not in job["metadata"]]
    job = max(alive, key=attempt_number, default=None)
    if job is None or attempt_number(job) < (before.attempt or 0):
        return None
    known = before.failure
    if known and known.attempt != attempt_number(job):
        known = None
    return _attempt(job, newest_pods(job, job_pods), known, outcome)


def is_behind(
    attempt: Attempt | None, job_pods: list[Object], jobs: list[Object], known: AttemptStatus
) -> bool:
    """Whether the Job that status tells of was not seen, or the end of its pod was not.

    Watches of several kinds do not keep step: a Job may be complete before its pod is seen to end.
    Nobody who deleted either by hand is told apart from that here.
    """
    if attempt is None:
        return bool(known.attempt)
    if known.failure and known.failure.attempt == attempt.number:
        return False
    job = job_of(attempt, jobs)
    return is_finished(job) and not any(map(pods.ending, newest_pods(job, job_pods).values()))


def pods_of(job: Object, job_pods: list[Object]) -> list[Object]:
    """By uid: a Job that was deleted and made again under its name has other pods."""
    return [
        pod
        for pod in job_pods
        if pod["metadata"].get("labels", {}).get("batch.kubernetes.io/controller-uid")
        == job["metadata"]["uid"]
    ]


def newest_pods(job: Object, job_pods: list[Object]) -> dict[int, Object]:
    """The last pod of each index; a Job without indices has one, 0."""
    found: dict[int, Object] = {}
    for pod in sorted(pods_of(job, job_pods), key=_in_turn):
        found[int(pod["metadata"].get("annotations", {}).get(INDEX, 0))] = pod
    return found


def _in_turn(pod: Object) -> tuple[str, bool, bool]:
    """Times have whole seconds, and a Job that is suspended and resumed makes two pods within one:
    the later is the one that was not deleted. Where no watch told of the deletion, it is the one
    that has ended."""
    created = str(pod["metadata"]["creationTimestamp"])
    return created, not pods.is_leaving(pod), pods.ending(pod) is not None


def _attempt(
    job: Object, own: dict[int, Object], known: Failure | None, outcome: Outcome | None
) -> Attempt:
    metadata = job["metadata"]
    number = attempt_number(job)
    common = {
        "number": number,
        "counted_failures": noted_number(job, COUNTED_FAILURES),
        "job_name": metadata["name"],
        "since": since(job),
        "has_pod": bool(own),
        "queue": metadata.get("labels", {}).get(QUEUE_NAME),
    }
    ended = [each for pod in own.values() if (each := _ended(pod))]
    if finished(job, "Complete"):
        last = next((each for each in ended if each.pod is own.get(0)), None)
        message = last.message if last else None
        if message and (message.tells_of(outcome) if outcome else message.failure is None):
            return Attempt(**common, state=AttemptState.SUCCEEDED, message=message)
        # Of a pod that did not end well another one was made, and is gone.
        says = last is not None and last.end.exit_code == 0
        failure = known or (_said_nothing(number, last) if last and says else _lost(number, job))
        return Attempt(**common, state=AttemptState.FAILED, failure=failure)
    if reason := finished(job, "Failed"):
        failed = [each for each in ended if each.end.exit_code != 0]
        first = min(failed, key=lambda each: each.rank, default=None)
        if first is None and known:
            return Attempt(**common, state=AttemptState.FAILED, failure=known)
        failure = _failure(number, reason, job, first)
        message = first.message if first else None
        return Attempt(**common, state=AttemptState.FAILED, message=message, failure=failure)
    if is_suspended(job):
        return Attempt(**common, state=AttemptState.SUSPENDED)
    wanted = job.get("spec", {}).get("completions") or 1
    if len(own) >= wanted and all(_works(pod) for pod in own.values()):
        leader = own.get(0)
        speaks = leader is not None and pods.phase(leader) == "Running"
        address = pods.address(leader) if leader and speaks else None
        return Attempt(**common, state=AttemptState.RUNNING, pod_address=address)
    trouble = next((found for pod in own.values() if (found := pods.trouble(pod))), None)
    leaving = next((leaves for pod in own.values() if (leaves := pods.leaving(pod))), None)
    return Attempt(**common, state=AttemptState.WAITING, trouble=trouble, leaving=leaving)


def _works(pod: Object) -> bool:
    """Or has ended, and the Job controller has yet to say so."""
    if pods.ending(pod):
        return True
    return pods.phase(pod) == "Running" and not pods.is_leaving(pod)


def _ended(pod: Object) -> _Ended | None:
    end = pods.ending(pod)
    return _Ended(pod, end, _parse(end.message)) if end else None


def finished(job: Object, type_: str) -> str | None:
    """The reason of a terminal condition of the Job, or None."""
    condition = raw_condition(job, type_)
    return str(condition.get("reason") or type_) if condition.get("status") == "True" else None


def is_finished(job: Object) -> bool:
    return bool(finished(job, "Complete") or finished(job, "Failed"))


def is_suspended(job: Object) -> bool:
    """Whether it is, or the Job controller has yet to say that it no longer is."""
    return bool(wants_suspension(job)) or raw_condition(job, "Suspended").get("status") == "True"


def wants_suspension(job: Object) -> bool:
    return bool(job.get("spec", {}).get("suspend"))


def since(job: Object) -> str:
    """When the Job was begun, or begun again after a suspension."""
    start = job.get("status", {}).get("startTime")
    return str(start or job["metadata"]["creationTimestamp"])


def job_end(job: Object) -> str:
    """When the Job was finished."""
    conditions = job.get("status", {}).get("conditions", [])
    times = [str(each["lastTransitionTime"]) for each in conditions]
    return max(times, key=datetime.fromisoformat, default=since(job))


def _parse(text: str) -> TerminationMessage | None:
    try:
        return TerminationMessage.model_validate(json_of_a_pod(text))
    except (ValueError, ValidationError):
        return None


def _said_nothing(number: int, last: _Ended) -> Failure:
    """An image of one's own may speak another language than the trainer's."""
    return Failure(
        attempt=number,
        failure_class=FailureClass.INTERNAL,
        reason=Reason.INTERNAL,
        message="The container ended well and did not say what it made: an image in podTemplate "
        "must be made from the trainer image of this version of Tunesmith.",
        exit_code=last.end.exit_code,
        finished_at=last.end.finished_at,
    )


def _lost(number: int, job: Object) -> Failure:
    """The Job is complete but its pod's last word is gone.

    The trainer finds the finished result in the output folder and reports it again at once.
    """
    return Failure(
        attempt=number,
        failure_class=FailureClass.USER_ERROR,
        reason=ConditionReason.RESULT_LOST,
        message="The pod was deleted before its result was read, and is started again.",
        finished_at=job_end(job),
    )


def _failure(number: int, job_reason: str, job: Object, first: _Ended | None) -> Failure:
    if job_reason == "DeadlineExceeded":
        failure_class, reason, text = DEADLINE
    elif first is None:
        failure_class, reason, text = POD_LOST
    elif pods.is_disrupted(first.pod):
        failure_class, reason, text = EVICTED
    else:
        failure_class, reason, text = failure_of(first.end, first.message)
    return Failure(
        attempt=number,
        failure_class=failure_class,
        reason=reason,
        message=text[:2048],
        exit_code=first.end.exit_code if first else None,
        finished_at=first.end.finished_at if first else job_end(job),
    )


DEADLINE: tuple[FailureClass, str, str] = (
    FailureClass.DEADLINE_EXCEEDED,
    ConditionReason.DEADLINE_EXCEEDED,
    "The attempt ran longer than activeDeadlineSeconds. Raise it, or train less.",
)
POD_LOST: tuple[FailureClass, str, str] = (
    FailureClass.PREEMPTED,
    ConditionReason.POD_LOST,
    "The pod was gone before it ended: its node was lost, or it was deleted.",
)
EVICTED: tuple[FailureClass, str, str] = (
    FailureClass.PREEMPTED,
    Reason.PREEMPTED,
    "The cluster took a pod away: its node was drained or lost, or another pod needed the place.",
)


def failure_of(
    end: pods.Ending, message: TerminationMessage | None
) -> tuple[FailureClass, str, str]:
    """Class, reason and sentence: the trainer's own, or what the kubelet saw."""
    if message and message.failure:
        told = message.failure
        return told.failure_class, str(told.reason), told.message
    if end.reason == "OOMKilled":
        return (
            FailureClass.OUT_OF_MEMORY,
            Reason.OUT_OF_MEMORY,
            "The container used more memory than resources.memory allows. Raise it, or lower "
            "training.microBatchSize.",
        )
    if end.exit_code == 143:
        return FailureClass.PREEMPTED, Reason.PREEMPTED, "The pod was told to stop."
    said = f". Its last line: {line}" if (line := _last_line(end.message)) else " and said nothing"
    return (
        FAILURE_CLASSES.get(end.exit_code, FailureClass.INTERNAL),
        Reason.INTERNAL,
        f"The container ended with exit code {end.exit_code}{said}: see its log.",
    )


def _last_line(text: str) -> str:
    """Of the log, which the kubelet hands over when there is no last word."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST_LAST_LINE].rstrip(".:") if lines else ""
