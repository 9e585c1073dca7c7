"""Invariants of attempts: one after the other, none too many, each allowed to begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import TrainingPlan
from tunesmith.finetunejob.decision import JobStage
from tunesmith.finetunejob.eval_runs import is_over
from tunesmith.kube.labels import ATTEMPT, COUNTED_FAILURES, OUTPUT, STAGE, noted
from tunesmith.kube.observed_attempt import is_finished

from tests.model.api_server import Object, View, Write, owner_uid
from tests.model.invariants import When, of_states, of_writes
from tests.model.trainer import Ending, plan_of
from tests.model.truth import Truth
from tests.unit.operator import given

#: Superseded Jobs go; the last that failed stays for its log.
MOST_JOBS_OF_A_STAGE = 2
COUNTED_CODES = {each.value.exit_code for each in Ending if each.value.counts}


# --- of Jobs that begin --------------------------------------------------------------------------


@of_writes
def attempts_increase(write: Write, truth: Truth) -> Iterator[str]:
    """A new attempt has a higher number than every attempt there is and than the last one in
    status."""
    job = _new_job(write)
    if job is None:
        return
    number = _number(job)
    for other in _siblings(write.seen.server.now, job):
        if _number(other) >= number:
            yield f"{_name(job)} is made although there is {_name(other)}"
    known = _attempts_in_status(write.seen.server.now, write.subject, job).get("attempt", 0)
    if known >= number:
        yield f"{_name(job)} is made although status knows attempt {known}"


@of_writes
def no_attempt_beyond_the_limit(write: Write, truth: Truth) -> Iterator[str]:
    """No attempt is begun once more than backoffLimit have failed by a fault that counts."""
    job = _new_job(write)
    if job is None or write.subject["kind"] == Kind.ADAPTER_DEPLOYMENT:
        return
    counted, limit = _counted_before(job), write.subject["spec"].get("backoffLimit", 3)
    if counted > limit:
        yield f"{_name(job)} follows on {counted} failures, and backoffLimit is {limit}"


@of_writes
def training_uses_prepared_data(write: Write, truth: Truth) -> Iterator[str]:
    """Nothing is trained but data that a preparation of the same job made ready."""
    plan = _training_plan(write)
    if plan and plan.dataset.digest not in truth.prepared[write.subject["metadata"]["uid"]]:
        yield f"{_name(write.after)} trains on {plan.dataset.digest}, which nobody prepared"


@of_writes
def outputs_stay(write: Write, truth: Truth) -> Iterator[str]:
    """A job without an output of its own stores everything in one place, whatever policies become:
    a new Job writes where status says or, without it, where the Jobs before it wrote."""
    job, kept = _new_job(write), write.subject
    if job is None or kept["kind"] != Kind.FINE_TUNE_JOB or "output" in kept["spec"]:
        return
    told = kept.get("status", {}).get("output")
    owned = (each for each in write.seen.list("Job") if owner_uid(each) == owner_uid(job))
    before = [told, *(noted(each, OUTPUT) for each in owned if each != job)]
    place = next((each["uri"] for each in before if each), None)
    if place and not _writes_below(job, place):
        yield f"{_name(job)} writes to another place than {place}"


@of_writes
def training_waits_for_approval(write: Write, truth: Truth) -> Iterator[str]:
    """Where a review is required, no attempt begins on data that its pass did not see approved,
    by name and digest."""
    plan, job = _training_plan(write), write.subject
    if plan is None or not job["spec"]["dataset"].get("review", {}).get("required"):
        return
    told = job["metadata"].get("annotations", {})
    if told.get(APPROVED_DATA) != plan.dataset.digest or not told.get(APPROVED_BY):
        yield f"{_name(write.after)} trains on {plan.dataset.digest}, and approved is {told}"


@of_writes
def nothing_begins_while_suspended(write: Write, truth: Truth) -> Iterator[str]:
    """A pass that sees spec.suspend makes no Job and no EvalRun, and lets none go on."""
    if write.subject["kind"] != Kind.FINE_TUNE_JOB or not write.subject["spec"].get("suspend"):
        return
    made = write.before is None and write.after["kind"] in ("Job", str(Kind.EVAL_RUN))
    if made:
        yield f"{write.after['kind']} {_name(write.after)} is made"
    if write.before and write.after["kind"] == "Job" and not write.after["spec"].get("suspend"):
        yield f"the Job {_name(write.after)} goes on"


@of_writes
def failures_carry_over(write: Write, truth: Truth) -> Iterator[str]:
    """A new attempt knows every failure that counts and that its pass saw in the Jobs before."""
    job = _new_job(write)
    if job is None:
        return
    for other in _siblings(write.seen, job):
        if _failed_countably(other, write.seen) and _counted_before(job) <= _counted_before(other):
            yield f"{_name(job)} knows {_counted_before(job)} failures after {_name(other)}"


# --- of status -----------------------------------------------------------------------------------


@of_writes
def failures_never_go_down(write: Write, truth: Truth) -> Iterator[str]:
    """The failures that status counts never become fewer, nor more than backoffLimit + 1, nor more
    than there truly were."""
    if write.before is None or write.after["kind"] not in (Kind.FINE_TUNE_JOB, Kind.EVAL_RUN):
        return
    limit, uid = write.after["spec"].get("backoffLimit", 3), write.after["metadata"]["uid"]
    for stage, after in _counted_in_status(write.after).items():
        before = _counted_in_status(write.before).get(stage, 0)
        if after < before:
            yield f"{_name(write.after)} {stage}: {before} failures became {after}"
        if after > limit + 1:
            yield f"{_name(write.after)} {stage}: {after} failures with backoffLimit {limit}"
        if after > (true := len(truth.failures[uid, stage])):
            yield f"{_name(write.after)} {stage}: {after} failures are counted, of {true}"


@of_writes
def seen_failures_are_counted(write: Write, truth: Truth) -> Iterator[str]:
    """A failure that counts is in status as soon as a pass that saw it writes it."""
    if write.before is None or write.after["kind"] not in (Kind.FINE_TUNE_JOB, Kind.EVAL_RUN):
        return
    counted = _counted_in_status(write.after)
    for job in _jobs_of(write.seen, write.after):
        stage = str(job["metadata"]["labels"].get(STAGE, ""))
        if _failed_countably(job, write.seen) and counted.get(stage, 0) <= _counted_before(job):
            yield f"{_name(write.after)} counts {counted}, and {_name(job)} has failed"


# --- of the whole --------------------------------------------------------------------------------


@of_states(When.ALWAYS)
def one_live_training_job(view: View) -> Iterator[str]:
    """At most one training Job of a FineTuneJob is neither finished nor being deleted."""
    live = Counter(
        owner_uid(each)
        for each in view.list("Job", {STAGE: str(JobStage.TRAIN)})
        if not is_finished(each) and not _leaves(each)
    )
    yield from (f"{uid} has {number}" for uid, number in live.items() if number > 1)


@of_states(When.AT_REST)
def suspended_jobs_rest(view: View) -> Iterator[str]:
    """At rest nothing of a suspended job runs: its Jobs are suspended or finished, its EvalRuns
    over or gone."""
    for job in view.list(str(Kind.FINE_TUNE_JOB)):
        parsed = FineTuneJob.from_object(job)
        if not parsed.spec.suspend or parsed.status.state is not JobState.SUSPENDED:
            continue
        for each in _jobs_of(view, job):
            if not is_finished(each) and not each["spec"].get("suspend") and not _leaves(each):
                yield f"{_name(each)} runs although {_name(job)} is suspended"
        for each in view.list(str(Kind.EVAL_RUN)):
            mine = owner_uid(each) == parsed.metadata.uid
            if mine and not is_over(EvalRun.from_object(each)):
                yield f"EvalRun {_name(each)} goes on although {_name(job)} is suspended"


@of_states(When.AT_REST)
def suspend_is_heard(view: View) -> Iterator[str]:
    """At rest a job with spec.suspend is Suspended, unless it is finished."""
    over = {JobState.SUSPENDED, JobState.READY, JobState.REJECTED, JobState.FAILED}
    for job in view.list(str(Kind.FINE_TUNE_JOB)):
        parsed = FineTuneJob.from_object(job)
        waits = any(each.reason == "NameTaken" for each in parsed.status.conditions)
        if parsed.spec.suspend and parsed.status.state not in over and not waits:
            yield f"{_name(job)} is {parsed.status.state}"


@of_states(When.AT_REST)
def superseded_attempts_go(view: View) -> Iterator[str]:
    """At rest there are at most two Jobs of a stage: the last that failed, and the one after it."""
    jobs = [each for each in view.list("Job") if ATTEMPT in each["metadata"]["labels"]]
    kinds = (str(Kind.FINE_TUNE_JOB), str(Kind.EVAL_RUN))
    owners = {each["metadata"]["uid"] for kind in kinds for each in view.list(kind)}
    found = Counter((owner_uid(each), each["metadata"]["labels"].get(STAGE, "")) for each in jobs)
    for (uid, stage), number in found.items():
        if uid in owners and number > MOST_JOBS_OF_A_STAGE:
            yield f"{uid} has {number} Jobs of stage {stage or 'evaluate'}"


# --- readings ------------------------------------------------------------------------------------


def _leaves(job: Object) -> bool:
    return "deletionTimestamp" in job["metadata"]


def _writes_below(job: Object, place: str) -> bool:
    return str(given.plan_of(job)["output"]["uri"]).startswith(f"{place}/")


def _new_job(write: Write) -> Object | None:
    return write.after if write.before is None and write.after["kind"] == "Job" else None


def _training_plan(write: Write) -> TrainingPlan | None:
    job = _new_job(write)
    plan = plan_of(write.seen.server.now, job["spec"]["template"]) if job else None
    return plan if isinstance(plan, TrainingPlan) else None


def _siblings(view: View, job: Object) -> list[Object]:
    """Other Jobs that do the same for the same owner: what its labels but the number say."""
    labels = {key: each for key, each in job["metadata"]["labels"].items() if key != ATTEMPT}
    found = [each for each in view.list("Job", labels) if owner_uid(each) == owner_uid(job)]
    return [each for each in found if each["metadata"]["uid"] != job["metadata"]["uid"]]


def _jobs_of(view: View, owner: Object) -> list[Object]:
    return [each for each in view.list("Job") if owner_uid(each) == owner["metadata"]["uid"]]


def _attempts_in_status(view: View, owner: Object, job: Object) -> dict[str, Any]:
    """As they stand, also when the pass saw an older status."""
    found = view.get(owner["kind"], owner["metadata"]["name"])
    if found is None or found["metadata"]["uid"] != owner["metadata"]["uid"]:
        return {}
    status: dict[str, Any] = found.get("status", {})
    if job["metadata"]["labels"].get(STAGE) == JobStage.PREPARE:
        return dict(status.get("preparation", {}))
    return status


def _counted_in_status(owner: Object) -> dict[str, int]:
    """By stage, as the Jobs' labels name them."""
    status = owner.get("status", {})
    if owner["kind"] == Kind.EVAL_RUN:
        return {"": status.get("countedFailures", 0)}
    return {
        str(JobStage.TRAIN): status.get("countedFailures", 0),
        str(JobStage.PREPARE): status.get("preparation", {}).get("countedFailures", 0),
    }


def _failed_countably(job: Object, view: View) -> bool:
    """Whether pods of it were seen to fail by a fault that counts, and by none that does not."""
    if not is_finished(job) or _leaves(job):
        return False
    pods = [each for each in view.list("Pod") if owner_uid(each) == job["metadata"]["uid"]]
    failed = [each for each in pods if each["status"]["phase"] == "Failed"]
    codes = {
        each["state"].get("terminated", {}).get("exitCode")
        for pod in failed
        for each in pod["status"].get("containerStatuses", [])
    }
    return bool(codes) and codes <= COUNTED_CODES


def _counted_before(job: Object) -> int:
    return int(job["metadata"]["annotations"][COUNTED_FAILURES])


def _number(job: Object) -> int:
    return int(job["metadata"]["labels"][ATTEMPT])


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])
