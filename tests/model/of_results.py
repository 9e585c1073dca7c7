"""Invariants of results: artifacts, verdicts, and what conditions say of them."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import Condition, ConditionStatus, Kind
from tunesmith.api.serving_status import ServingState
from tunesmith.api.verdict import Verdict
from tunesmith.kube.conditions import find, is_true

from tests.model.api_server import OURS, View, Write
from tests.model.invariants import When, of_states, of_writes
from tests.model.truth import Truth

FINISHED = {JobState.READY, JobState.REJECTED, JobState.FAILED}


@of_writes
def artifacts_stay(write: Write, truth: Truth) -> Iterator[str]:
    """An artifact in status is one that training truly made, and stays until a newer attempt
    begins."""
    if found := _jobs(write):
        before, after = found
        artifact, old = after.status.artifact, before.status.artifact
        if artifact and artifact.digest not in truth.trained[after.metadata.uid]:
            yield f"{artifact.digest} was never made"
        if old and artifact != old and (after.status.attempt or 0) <= (before.status.attempt or 0):
            yield f"{old.digest} is replaced by {artifact} without a newer attempt"


@of_writes
def verdicts_stay(write: Write, truth: Truth) -> Iterator[str]:
    """A verdict in status stays as it is: of an EvalRun for good, of a FineTuneJob as long as its
    artifact is the same and its EvalRun was not made to forget and measure again."""
    if runs := _runs(write):
        before, after = runs
        kept = ("verdict", "adapter_digest", "results", "gates")
        if before.status.results:
            for each in kept:
                if getattr(before.status, each) != getattr(after.status, each):
                    yield f"{each} of {after.metadata.name} changed"
    if jobs := _jobs(write):
        old, new = jobs[0].status, jobs[1].status
        same = old.artifact and new.artifact and old.artifact.digest == new.artifact.digest
        judged = old.evaluation and old.evaluation.verdict
        if same and judged and (new.evaluation is None or new.evaluation.verdict != judged):
            run = write.seen.get(Kind.EVAL_RUN, new.evaluation.name or "") if new.evaluation else {}
            told = (run or {}).get("status", {}).get("verdict")
            if new.evaluation is None or told != new.evaluation.verdict:
                yield f"{judged} became {new.evaluation}"


@of_writes
def verdicts_are_of_this_adapter(write: Write, truth: Truth) -> Iterator[str]:
    """A verdict is about exactly the adapter beside it, and some evaluation of that adapter truly
    ended so."""
    if runs := _runs(write):
        run = runs[1]
        told, digest = run.status.verdict, run.status.adapter_digest
        if told and (digest is None or told not in truth.verdicts[digest]):
            yield f"EvalRun {run.metadata.name} says {told} of {digest}"
        named = run.spec.adapter.digest if run.spec.adapter else None
        if told and named and named != digest:
            yield f"EvalRun {run.metadata.name} is about {named} and judged {digest}"
    if jobs := _jobs(write):
        status = jobs[1].status
        if status.evaluation and (verdict := status.evaluation.verdict):
            digest = status.evaluation.adapter_digest
            if status.artifact and digest != status.artifact.digest:
                yield f"the verdict is about {digest}, the artifact is {status.artifact.digest}"
            if digest is None or verdict not in truth.verdicts[digest]:
                yield f"{verdict} of {digest} was never measured"


@of_writes
def ready_means_passed(write: Write, truth: Truth) -> Iterator[str]:
    """A FineTuneJob is Ready only with an artifact that an evaluation truly found to pass."""
    if jobs := _jobs(write):
        status = jobs[1].status
        if is_true(status.conditions, "Ready"):
            digest = status.artifact.digest if status.artifact else ""
            if Verdict.PASSED not in truth.verdicts[digest]:
                yield f"{jobs[1].metadata.name} is Ready with {digest or 'nothing'}"


@of_writes
def success_is_not_taken_back(write: Write, truth: Truth) -> Iterator[str]:
    """Succeeded, once True, stays True as long as the artifact, or the measurement, stands."""
    if jobs := _jobs(write):
        old, new = (each.status for each in jobs)
        if old.artifact and new.artifact == old.artifact and _lost(old.conditions, new.conditions):
            yield f"{jobs[1].metadata.name} has not succeeded any more"
    if (runs := _runs(write)) and _lost(*(each.status.conditions for each in runs)):
        yield f"{runs[1].metadata.name} has not succeeded any more"


@of_writes
def conditions_are_well_formed(write: Write, truth: Truth) -> Iterator[str]:
    """Conditions have types of their own, are about a generation that was, and keep their time as
    long as they keep their status."""
    if write.before is None or write.after["kind"] not in OURS:
        return
    generation = write.after["metadata"]["generation"]
    now, before = _conditions(write.after), {each.type: each for each in _conditions(write.before)}
    if len({each.type for each in now}) != len(now):
        yield f"a type is there twice: {[each.type for each in now]}"
    for each in now:
        if not 1 <= each.observed_generation <= generation:
            yield f"{each.type} is about generation {each.observed_generation} of {generation}"
        old = before.get(each.type)
        same = old is not None and old.status == each.status
        if old and same and old.last_transition_time != each.last_transition_time:
            yield f"{each.type} is still {each.status}, and has another time"


@of_writes
def what_is_written_can_be_read(write: Write, truth: Truth) -> Iterator[str]:
    """No object is ever found to be NotReadable: what the operator writes it can read."""
    for each in _conditions(write.after):
        if each.reason == "NotReadable":
            yield f"{write.after['metadata']['name']}: {each.message}"


@of_states(When.AT_REST)
def state_and_conditions_agree(view: View) -> Iterator[str]:
    """At rest the word for people says the same as the conditions: Ready is Ready, and what is
    finished is Finished."""
    for raw in view.list(str(Kind.FINE_TUNE_JOB)):
        status, name = FineTuneJob.from_object(raw).status, raw["metadata"]["name"]
        if any(each.reason == "NameTaken" for each in status.conditions):
            continue
        if is_true(status.conditions, "Ready") != (status.state is JobState.READY):
            yield f"{name} is {status.state}, and its condition Ready says otherwise"
        if is_true(status.conditions, "Finished") != (status.state in FINISHED):
            yield f"{name} is {status.state}, and its condition Finished says otherwise"


@of_states(When.IN_THE_END)
def every_job_ends(view: View) -> Iterator[str]:
    """When all faults stop and pods succeed, every FineTuneJob is finished and every EvalRun has
    its result, or says for good why it has none."""
    for raw in view.list(str(Kind.FINE_TUNE_JOB)):
        job = FineTuneJob.from_object(raw)
        if job.status.state not in FINISHED:
            yield f"FineTuneJob {job.metadata.name} is {job.status.state}"
    for raw in view.list(str(Kind.EVAL_RUN)):
        run = EvalRun.from_object(raw)
        stalled = is_true(run.status.conditions, "Stalled")
        if not stalled and not is_true(run.status.conditions, "Succeeded"):
            yield f"EvalRun {run.metadata.name} is {run.status.state}"


@of_states(When.IN_THE_END)
def deployments_recover(view: View) -> Iterator[str]:
    """When all faults stop and every replica loads what it is to load, every AdapterDeployment is
    Ready, or has nothing to serve."""
    fine = {ServingState.READY, ServingState.SCALED_TO_ZERO}
    for raw in view.list(str(Kind.ADAPTER_DEPLOYMENT)):
        status = raw.get("status", {})
        ready = find(_conditions(raw), "Ready")
        nothing = ready is not None and ready.reason == "NoAdapter"
        if status.get("state") not in fine and not nothing:
            yield f"{raw['metadata']['name']} is {status.get('state')}: {ready}"


def _jobs(write: Write) -> tuple[FineTuneJob, FineTuneJob] | None:
    """A FineTuneJob before and after its status was written."""
    if write.before is None or write.after["kind"] != Kind.FINE_TUNE_JOB:
        return None
    return FineTuneJob.from_object(write.before), FineTuneJob.from_object(write.after)


def _runs(write: Write) -> tuple[EvalRun, EvalRun] | None:
    if write.before is None or write.after["kind"] != Kind.EVAL_RUN:
        return None
    return EvalRun.from_object(write.before), EvalRun.from_object(write.after)


def _conditions(raw: dict[str, object]) -> list[Condition]:
    """Of one of our kinds."""
    status = raw.get("status") if raw["kind"] in OURS else None
    told = status.get("conditions", []) if isinstance(status, dict) else []
    return [Condition.model_validate(each) for each in told]


def _lost(before: list[Condition], after: list[Condition]) -> bool:
    found = find(after, "Succeeded")
    gone = found is None or found.status is not ConditionStatus.TRUE
    return is_true(before, "Succeeded") and gone
