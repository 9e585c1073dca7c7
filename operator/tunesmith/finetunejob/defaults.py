"""A FineTuneJob with what the policies of its namespace give it. Pure."""

from __future__ import annotations

from tunesmith.api.finetunejob import FineTuneJob, JobState, OutputStore
from tunesmith.finetunejob.decision import Decision, Observed
from tunesmith.finetunejob.training import not_ready
from tunesmith.kube.conditions import holds, unknown
from tunesmith.kube.policies import Defaults, placed, queued

NO_OUTPUT = (
    "spec.output is missing, and no TuningPolicy says where jobs of this namespace store their "
    "adapters: delete this job and apply it with output.uri, for example pvc://adapters, or ask "
    "the platform team for a default, with which it goes on by itself."
)


def with_defaults(job: FineTuneJob, given: Defaults) -> FineTuneJob:
    """The job as if it said what it is given; what it says itself stays.

    Not its output: that is written down in status, as what was stored has to be found again.
    """
    spec = job.spec
    changes = {
        "pod_template": placed(spec.pod_template, given.trainer),
        "active_deadline_seconds": spec.active_deadline_seconds or given.deadline_seconds,
    }
    return job.model_copy(
        update={
            "metadata": queued(job.metadata, given.queue),
            "spec": spec.model_copy(update=changes),
        }
    )


def before_anything(observed: Observed) -> Decision | None:
    """What to do about a job without an output; None when it has one.

    One that a policy gives is first written down, and then used: a policy that changes meanwhile
    would leave half of the work in one place, and look for it in another.
    """
    if observed.job.output:
        return None
    if observed.given_output:
        message = f"The adapter goes to {observed.given_output.uri}, as a TuningPolicy says."
        return Decision(JobState.PENDING, unknown("Succeeded", "Pending", message), not_ready([]))
    return Decision(
        JobState.WAITING,
        succeeded=unknown("Succeeded", "NoOutput", NO_OUTPUT),
        ready=not_ready([]),
        stalled=holds("Stalled", "NoOutput", NO_OUTPUT),
    )


def pinned_output(observed: Observed, state: JobState) -> OutputStore | None:
    """The output that status remembers, from when the job first went on."""
    job = observed.job
    if job.spec.output or job.status.output or state is JobState.SUSPENDED:
        return job.status.output
    return observed.given_output
