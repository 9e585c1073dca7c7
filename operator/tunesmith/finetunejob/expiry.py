"""ttlSecondsAfterFinished: a job that is done is deleted after a while. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import FINISHED, JobState
from tunesmith.api.objects import Condition
from tunesmith.kube.conditions import Finding, fails, find, holds, is_true


def finding(state: JobState) -> Finding:
    """The condition Finished, whose last transition says since when."""
    if state in FINISHED:
        return holds("Finished", state, "Nothing follows by itself.")
    return fails("Finished", state, "The job is not done yet.")


def time_left(job: FineTuneJob, conditions: Iterable[Condition], now: datetime) -> timedelta | None:
    """Until the job is to be deleted, at least nothing; None when it is to stay."""
    ttl, told = job.spec.ttl_seconds_after_finished, list(conditions)
    finished = find(told, "Finished")
    if ttl is None or finished is None or not is_true(told, "Finished"):
        return None
    due = datetime.fromisoformat(finished.last_transition_time) + timedelta(seconds=ttl)
    return max(due - now, timedelta(0))
