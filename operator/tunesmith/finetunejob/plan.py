"""Decides what happens next to a FineTuneJob. Pure: no client, no clock, no logger."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tunesmith.api.evalrun import EvalRun, EvalState, Verdict
from tunesmith.api.finetunejob import (
    Artifact,
    DatasetReceipt,
    FineTuneJob,
    FineTuneJobStatus,
    JobEvaluation,
    JobState,
    Progress,
    TrainingPhase,
)
from tunesmith.api.trainer_contract import ProgressReport
from tunesmith.finetunejob.guidance import warnings
from tunesmith.finetunejob.objects import eval_run, eval_run_name, training_job, training_job_name
from tunesmith.kube.advance import (
    Stage,
    advance,
    kstatus,
    missing_config_map,
    remembered_attempts,
)
from tunesmith.kube.attempts import Attempt, Start, outdated_children
from tunesmith.kube.conditions import (
    Finding,
    fails,
    find,
    holds,
    is_true,
    timestamp,
    unknown,
    updated,
)
from tunesmith.kube.plan import Object, Plan
from tunesmith.settings import Settings


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    job: FineTuneJob
    attempt: Attempt | None = None
    #: Every batch Job of this FineTuneJob, raw.
    jobs: list[Object] = field(default_factory=list)
    progress: ProgressReport | None = None
    eval_runs: list[EvalRun] = field(default_factory=list)
    #: The ConfigMap that the dataset should be in, when it does not exist.
    missing_config_map: str | None = None


@dataclass(frozen=True)
class Results:
    """What training gave so far."""

    artifact: Artifact | None
    dataset: DatasetReceipt | None
    progress: Progress | None


@dataclass(frozen=True)
class Decision:
    """A plan before its status is put together."""

    state: JobState
    succeeded: Finding
    ready: Finding
    stalled: Finding | None = None
    start: Start | None = None
    requeue_after: timedelta | None = None
    evaluation: JobEvaluation | None = None
    eval_run: Object | None = None


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What to do about a FineTuneJob, and what its status says."""
    results = _results(observed)
    if results.artifact:
        decision = _after_training(observed, results.artifact, results.dataset)
    else:
        decision = _training(observed, settings, now)
    start = decision.start
    return Plan(
        status=_status(observed, decision, results, now),
        create=[
            *(training_job(observed.job, start, settings) if start else ()),
            *([decision.eval_run] if decision.eval_run else ()),
        ],
        delete=outdated_children(observed.jobs, start),
        requeue_after=decision.requeue_after,
    )


def _results(observed: Observed) -> Results:
    """From the pod while it is there, else from what status keeps."""
    status, attempt, report = observed.job.status, observed.attempt, observed.progress
    outcome = attempt.message.training if attempt and attempt.message else None
    if outcome:
        return Results(outcome.artifact, outcome.dataset, outcome.progress)
    return Results(
        status.artifact,
        (report.dataset if report else None) or status.dataset,
        (report.training if report else None) or status.progress,
    )


# --- training ------------------------------------------------------------------------------------

STATES = {
    Stage.PENDING: JobState.PENDING,
    Stage.RUNNING: JobState.PREPARING,
    Stage.WAITING: JobState.WAITING,
    Stage.RETRYING: JobState.RETRYING,
    Stage.FAILED: JobState.FAILED,
}


def _training(observed: Observed, settings: Settings, now: datetime) -> Decision:
    job = observed.job
    missing = missing_config_map(observed.missing_config_map, job.metadata)
    step = advance(observed.attempt, job.status, job.spec.backoff_limit, missing, settings, now)
    decision = Decision(
        state=STATES[step.stage],
        succeeded=step.succeeded,
        ready=fails("Ready", "NotTrained", "There is no adapter yet."),
        stalled=step.stalled,
        start=step.start,
        requeue_after=step.requeue_after,
    )
    if step.stage is not Stage.RUNNING:
        return decision
    return _with_phase(decision, _results(observed).progress)


def _with_phase(decision: Decision, progress: Progress | None) -> Decision:
    """The trainer's own word for what it is doing, or the last one that was heard."""
    match progress.phase if progress else None:
        case TrainingPhase.TRAINING:
            assert progress is not None
            state = JobState.TRAINING
            message = f"Training: step {progress.step or 0} of {progress.total_steps or '?'}."
        case TrainingPhase.SAVING | TrainingPhase.DONE:
            state, message = JobState.SAVING, "The adapter is being stored."
        case _:
            state, message = JobState.PREPARING, "Model and data are being prepared."
    return replace(decision, state=state, succeeded=unknown("Succeeded", str(state), message))


# --- evaluation ----------------------------------------------------------------------------------


def _after_training(
    observed: Observed, artifact: Artifact, dataset: DatasetReceipt | None
) -> Decision:
    job = observed.job
    name = eval_run_name(job, artifact)
    run = next((each for each in observed.eval_runs if each.metadata.name == name), None)
    evaluation = _evaluation(job.status.evaluation, name, run, artifact)
    succeeded = holds("Succeeded", "Trained", f"The adapter is stored in {artifact.uri}.")
    ready = fails("Ready", "Evaluating", f"EvalRun {name} decides.")
    decision = Decision(JobState.EVALUATING, succeeded, ready, evaluation=evaluation)
    if evaluation.verdict:
        return _judged(decision, evaluation)
    if run is None:
        return replace(decision, eval_run=eval_run(job, artifact, dataset))
    return _being_judged(decision, run)


def _evaluation(
    remembered: JobEvaluation | None, name: str, run: EvalRun | None, artifact: Artifact
) -> JobEvaluation:
    """The verdict on exactly this adapter, from its EvalRun or as it was once seen."""
    if run and run.status.verdict and run.status.adapter_digest == artifact.digest:
        result = run.status.results[0] if run.status.results else None
        return JobEvaluation(
            name=name,
            verdict=run.status.verdict,
            adapter_digest=artifact.digest,
            metric=result.metric if result else None,
            base=result.base if result else None,
            adapter=result.adapter if result else None,
        )
    if remembered and remembered.verdict and remembered.adapter_digest == artifact.digest:
        return remembered
    return JobEvaluation(name=name)


def _judged(decision: Decision, evaluation: JobEvaluation) -> Decision:
    scores = ""
    if evaluation.base is not None and evaluation.adapter is not None:
        scores = (
            f" ({evaluation.metric}: base model {evaluation.base:.1f}, "
            f"adapter {evaluation.adapter:.1f})"
        )
    match evaluation.verdict:
        case Verdict.PASSED:
            ready = holds("Ready", "EvaluationPassed", f"The adapter may be served{scores}.")
            return replace(decision, state=JobState.READY, ready=ready)
        case Verdict.FAILED:
            message = (
                f"The adapter is not served: it is not better than the base model{scores}. Lower "
                "the learning rate, train fewer epochs, or look through the data."
            )
            ready = fails("Ready", "EvaluationFailed", message)
        case _:
            message = (
                f"The adapter is not served: too few held-out examples to decide{scores}. Raise "
                "dataset.heldOut.fraction or add data."
            )
            ready = fails("Ready", "EvaluationInconclusive", message)
    stalled = holds("Stalled", ready.reason, ready.message)
    return replace(decision, state=JobState.REJECTED, ready=ready, stalled=stalled)


def _being_judged(decision: Decision, run: EvalRun) -> Decision:
    name, conditions = run.metadata.name, run.status.conditions
    if is_true(conditions, "Stalled"):
        stalled = find(conditions, "Stalled")
        assert stalled is not None
        message = f"EvalRun {name} waits: {stalled.message}"
        if run.status.state is EvalState.ERROR and run.status.failure:
            message = (
                f"EvalRun {name} failed: {run.status.failure.message} "
                f"`kubectl delete evalrun {name}` has it made again; the adapter is kept."
            )
        return replace(
            decision,
            state=JobState.WAITING,
            ready=fails("Ready", stalled.reason, message),
            stalled=holds("Stalled", stalled.reason, message),
        )
    percent = run.status.progress.percent if run.status.progress else None
    how_far = f" ({percent}%)" if percent is not None else ""
    message = f"EvalRun {name} compares adapter and base model{how_far}."
    return replace(decision, ready=fails("Ready", "Evaluating", message))


# --- status --------------------------------------------------------------------------------------


def _status(
    observed: Observed,
    decision: Decision,
    results: Results,
    now: datetime,
) -> FineTuneJobStatus:
    job, before = observed.job, observed.job.status
    memory = remembered_attempts(
        observed.attempt, decision.start, before, has_result=results.artifact is not None
    )
    finished = decision.state in {JobState.READY, JobState.REJECTED, JobState.FAILED}
    findings = [
        decision.succeeded,
        decision.ready,
        *kstatus(decision.state, decision.succeeded, decision.stalled, finished=finished),
    ]
    if unusual := warnings(job.spec.lora, results.dataset):
        findings.append(holds("Warning", "OutsideProvenRange", " ".join(unusual)))
    trained_at = timestamp(now) if results.artifact else None
    return FineTuneJobStatus(
        **memory,
        observed_generation=job.metadata.generation,
        state=decision.state,
        conditions=updated(before.conditions, findings, job.metadata.generation, now),
        job_name=training_job_name(job, memory["attempt"]),
        # A new attempt starts from nothing: old figures would mislead.
        progress=None if decision.start else results.progress,
        dataset=results.dataset,
        artifact=results.artifact,
        evaluation=decision.evaluation,
        start_time=before.start_time or timestamp(now),
        completion_time=before.completion_time or trained_at,
    )
