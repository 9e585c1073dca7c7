"""Decides what happens next to an EvalRun. Pure: no client, no clock, no logger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tunesmith.api.evalrun import (
    EvalRun,
    EvalRunStatus,
    EvalState,
    EvaluationPhase,
    EvaluationProgress,
    GateResult,
    SuiteResult,
)
from tunesmith.api.evaluation_suite import OnInconclusive
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import ArtifactKind, JobState
from tunesmith.api.reasons import ConditionReason
from tunesmith.api.sample_size import WORTH_SEEING_POINTS, detectable_points
from tunesmith.api.trainer_contract import EvaluationOutcome, ProgressReport
from tunesmith.api.verdict import MOST_FAILED_PERCENT, Verdict
from tunesmith.evalrun.objects import JudgedAdapter, evaluation_job, evaluation_job_name
from tunesmith.evalrun.verdict import gates_of, judge_all, worst
from tunesmith.kube.advance import (
    Stage,
    advance,
    kstatus,
    missing_config_map,
    remembered_attempts,
)
from tunesmith.kube.attempts import Attempt, Start, outdated_children
from tunesmith.kube.conditions import Finding, fails, holds, timestamp, unknown, updated
from tunesmith.kube.plan import Object, Plan
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    #: With what the policies of its namespace give it.
    run: EvalRun
    attempt: Attempt | None = None
    #: Every batch Job of this EvalRun, raw.
    jobs: list[Object] = field(default_factory=list)
    progress: ProgressReport | None = None
    #: A ConfigMap that something should be read from, when it does not exist.
    missing_config_map: str | None = None
    #: The FineTuneJob whose adapter is judged, if the run names one and it exists.
    named_job: FineTuneJob | None = None
    #: The pods of all these Jobs.
    pods: list[Object] = field(default_factory=list)
    #: Longest time that an attempt may run, as a policy says.
    deadline_seconds: int | None = None


@dataclass(frozen=True)
class Decision:
    """A plan before its status is put together."""

    state: EvalState
    succeeded: Finding
    passed: Finding
    stalled: Finding | None = None
    start: Start | None = None
    requeue_after: timedelta | None = None


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What to do about an EvalRun, and what its status says."""
    outcome = _outcome(observed)
    if outcome:
        decision, status = _judged(observed, outcome)
    else:
        decision = _measuring(observed, settings, now)
        status = EvalRunStatus()
    start = decision.start
    return Plan(
        status=_completed(observed, decision, status, now),
        create=_job(observed, start, settings) if start else (),
        obsolete=outdated_children(observed.jobs, start),
        requeue_after=decision.requeue_after,
    )


def _job(observed: Observed, start: Start, settings: Settings) -> list[Object]:
    adapter, deadline = _adapter(observed), observed.deadline_seconds
    return evaluation_job(observed.run, adapter, start, settings, deadline)


def _outcome(observed: Observed) -> EvaluationOutcome | None:
    """What was measured: from the pod while it is there, else from what status keeps."""
    attempt, status = observed.attempt, observed.run.status
    if attempt and attempt.message and attempt.message.evaluation:
        return attempt.message.evaluation
    if status.results and status.base_model_digest:
        return EvaluationOutcome(
            digest=status.adapter_digest,
            base_model_digest=status.base_model_digest,
            chat_template_digest=status.chat_template_digest,
            results=status.results,
            report=status.report,
        )
    return None


def _adapter(observed: Observed) -> JudgedAdapter | None:
    """The adapter that is judged, by place and content; None if there is none (yet)."""
    adapter = observed.run.spec.adapter
    if adapter and adapter.uri and adapter.digest:
        return JudgedAdapter(adapter.uri, adapter.digest, adapter.secret_ref)
    job = observed.named_job
    artifact = job.status.artifact if job else None
    if job is None or artifact is None or artifact.kind is ArtifactKind.MODEL:
        return None
    return JudgedAdapter(artifact.uri, artifact.digest, job.output_secret)


# --- the verdict ---------------------------------------------------------------------------------


def _judged(observed: Observed, outcome: EvaluationOutcome) -> tuple[Decision, EvalRunStatus]:
    before = observed.run.status
    # A verdict that has fallen stays, although the rules of a later version may differ.
    gates = before.gates or judge_all(gates_of(observed.run), outcome.results)
    verdict = before.verdict or (worst(gates) if gates else None)
    sentence = " ".join(_sentence(each) for each in outcome.results)
    succeeded = holds("Succeeded", ConditionReason.MEASURED, sentence)
    match verdict:
        case Verdict.PASSED:
            state, passed = EvalState.PASSED, holds("Passed", ConditionReason.GATES_HOLD, sentence)
        case Verdict.FAILED:
            state, passed = EvalState.FAILED, fails("Passed", ConditionReason.GATE_FAILED, sentence)
        case Verdict.INCONCLUSIVE:
            message = f"{sentence} {_doubt(gates, outcome.results)}"
            state, passed = (
                EvalState.INCONCLUSIVE,
                fails("Passed", ConditionReason.INCONCLUSIVE, message),
            )
        case None:
            message = "Nothing was compared with the base model, so there is nothing to pass."
            state, passed = (
                EvalState.MEASURED,
                fails("Passed", ConditionReason.NOTHING_COMPARED, message),
            )
    status = EvalRunStatus(
        verdict=verdict,
        adapter_digest=outcome.digest,
        base_model_digest=outcome.base_model_digest,
        chat_template_digest=outcome.chat_template_digest,
        results=outcome.results,
        gates=gates,
        report=outcome.report,
    )
    return Decision(state, succeeded, passed), status


def _doubt(gates: list[GateResult], results: list[SuiteResult]) -> str:
    doubtful = {gate.suite for gate in gates if gate.verdict is Verdict.INCONCLUSIVE}
    failing = [
        each
        for each in results
        if each.suite in doubtful and (each.failed_percent or 0) > MOST_FAILED_PERCENT
    ]
    if failing:
        return (
            f"{failing[0].suite}: the judge failed to rate {failing[0].failed_percent:.0f}% of the "
            f"answers, and more than {MOST_FAILED_PERCENT:.0f}% is no basis for a verdict: use "
            "another judge in a new run."
        )
    return (
        "The interval contains the bound: more items would decide. In a new run, "
        "onInconclusive: Extend on the gate asks for more where there are more; else add some, or "
        "say with onInconclusive what the doubt counts as."
    )


def _sentence(result: SuiteResult) -> str:
    """One suite in one sentence, with its numbers."""
    base = f"{result.suite}: {result.metric} of the base model {result.base:.1f}"
    if result.prompted_base is not None:
        base += f" ({result.prompted_base:.1f} with its best prompt)"
    interval = result.confidence_interval
    if result.adapter is None or result.difference is None or interval is None:
        return f"{base} on {result.items} items."
    return (
        f"{base}, of the adapter {result.adapter:.1f}, difference {result.difference:+.1f} "
        f"[{interval.lower:+.1f}, {interval.upper:+.1f}] on {result.items} items."
    )


# --- measuring -----------------------------------------------------------------------------------


STATES = {
    Stage.PENDING: EvalState.PENDING,
    Stage.QUEUED: EvalState.PENDING,
    Stage.RUNNING: EvalState.RUNNING,
    Stage.WAITING: EvalState.WAITING,
    Stage.RETRYING: EvalState.RETRYING,
    Stage.FAILED: EvalState.ERROR,
}


def _measuring(observed: Observed, settings: Settings, now: datetime) -> Decision:
    run = observed.run
    missing = missing_config_map(observed.missing_config_map, run.metadata)
    step = advance(observed.attempt, run.status, run.spec.backoff_limit, missing, settings, now)
    if step.start and (lack := _lack_of_adapter(observed)):
        trouble, is_final = lack
        return Decision(
            EvalState.WAITING,
            unknown("Succeeded", trouble.reason, trouble.message),
            fails("Passed", ConditionReason.NO_VERDICT, "There is no verdict yet."),
            holds("Stalled", trouble.reason, trouble.message) if is_final else None,
            requeue_after=settings.progress_interval,
        )
    return Decision(
        state=STATES[step.stage],
        succeeded=step.succeeded,
        passed=fails("Passed", ConditionReason.NO_VERDICT, "There is no verdict yet."),
        stalled=step.stalled,
        start=step.start,
        requeue_after=step.requeue_after,
    )


def _lack_of_adapter(observed: Observed) -> tuple[Trouble, bool] | None:
    """Why a FineTuneJob that the run names has no adapter to judge, and whether it never will."""
    adapter, job = observed.run.spec.adapter, observed.named_job
    if adapter is None or adapter.job is None or _adapter(observed):
        return None
    if job and job.status.artifact:
        message = (
            f"The FineTuneJob {adapter.job} made a model, not an adapter: delete this run and "
            "apply it with mergedModel, the uri and digest of the job's status.artifact."
        )
        return Trouble(ConditionReason.NO_ADAPTER, message), True
    if job is None:
        message = (
            f"The FineTuneJob {adapter.job} does not exist: apply it, or delete this run and apply "
            "it with another adapter.job."
        )
        return Trouble(ConditionReason.JOB_NOT_FOUND, message), True
    if job.status.state in (JobState.FAILED, JobState.REJECTED):
        message = (
            f"The FineTuneJob {adapter.job} is {job.status.state} and has no adapter: delete this "
            "run and apply it with another adapter.job."
        )
        return Trouble(ConditionReason.NO_ADAPTER, message), True
    message = f"The FineTuneJob {adapter.job} has not trained its adapter yet."
    return Trouble(ConditionReason.NOT_TRAINED, message), False


def _sample_sizes(run: EvalRun) -> Finding | None:
    """What so few questions cannot show, said before anything is spent on asking them."""
    final = {
        gate.suite
        for gate in gates_of(run)
        if gate.on_inconclusive not in (OnInconclusive.EXTEND, OnInconclusive.PASS)
    }
    small = [
        f"{suite.name}: {suite.max_items} items detect {points:g} points"
        for suite in run.spec.suites
        if suite.dataset
        and suite.name in final
        and (points := detectable_points(suite.max_items)) > WORTH_SEEING_POINTS
    ]
    if not small:
        return None
    message = f"{'; '.join(small)}; smaller differences stay in doubt. A larger maxItems helps."
    return holds("Warning", ConditionReason.FEW_ITEMS, message)


# --- status --------------------------------------------------------------------------------------


def _completed(
    observed: Observed, decision: Decision, status: EvalRunStatus, now: datetime
) -> EvalRunStatus:
    run, before = observed.run, observed.run.status
    finished = bool(status.results)
    memory = remembered_attempts(observed.attempt, decision.start, before, has_result=finished)
    findings = [
        decision.succeeded,
        decision.passed,
        *kstatus(decision.state, decision.succeeded, decision.stalled, finished=finished),
    ]
    if not finished and (warning := _sample_sizes(run)):
        findings.append(warning)
    return status.model_copy(
        update={
            **memory,
            "observed_generation": run.metadata.generation,
            "state": decision.state,
            "conditions": updated(before.conditions, findings, run.metadata.generation, now),
            "job_name": evaluation_job_name(run, memory["attempt"]) if memory["attempt"] else None,
            "progress": _progress(observed, decision, finished=finished),
            "start_time": before.start_time or timestamp(now),
            "completion_time": before.completion_time or (timestamp(now) if finished else None),
        }
    )


def _progress(
    observed: Observed, decision: Decision, *, finished: bool
) -> EvaluationProgress | None:
    """How far it is; a new attempt starts from nothing, and a finished run is at 100%."""
    if decision.start:
        return None
    report = observed.progress
    progress = report.evaluation if report and report.evaluation else observed.run.status.progress
    return _full(progress) if finished else progress


def _full(progress: EvaluationProgress | None) -> EvaluationProgress:
    """The last report comes before the end; a finished run is at 100%."""
    total = progress.items_total if progress else None
    return EvaluationProgress(
        phase=EvaluationPhase.DONE, items_done=total, items_total=total, percent=100
    )
