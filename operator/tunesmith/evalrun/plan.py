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
    SuiteResult,
    Verdict,
)
from tunesmith.api.trainer_contract import EvaluationOutcome, ProgressReport
from tunesmith.evalrun.objects import evaluation_job, evaluation_job_name
from tunesmith.evalrun.verdict import judge_all, worst
from tunesmith.kube.advance import (
    Stage,
    advance,
    kstatus,
    missing_config_map,
    remembered_attempts,
)
from tunesmith.kube.attempts import Attempt, Start, outdated_children
from tunesmith.kube.conditions import Finding, fails, holds, timestamp, updated
from tunesmith.kube.plan import Object, Plan
from tunesmith.settings import Settings


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    run: EvalRun
    attempt: Attempt | None = None
    #: Every batch Job of this EvalRun, raw.
    jobs: list[Object] = field(default_factory=list)
    progress: ProgressReport | None = None
    #: A ConfigMap that a suite's dataset should be in, when it does not exist.
    missing_config_map: str | None = None


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
        create=evaluation_job(observed.run, start, settings) if start else (),
        delete=outdated_children(observed.jobs, start),
        requeue_after=decision.requeue_after,
    )


def _outcome(observed: Observed) -> EvaluationOutcome | None:
    """What was measured: from the pod while it is there, else from what status keeps."""
    attempt, status = observed.attempt, observed.run.status
    if attempt and attempt.message and attempt.message.evaluation:
        return attempt.message.evaluation
    if status.verdict and status.results and status.adapter_digest and status.base_model_digest:
        return EvaluationOutcome(
            adapter_digest=status.adapter_digest,
            base_model_digest=status.base_model_digest,
            results=status.results,
        )
    return None


# --- the verdict ---------------------------------------------------------------------------------


def _judged(observed: Observed, outcome: EvaluationOutcome) -> tuple[Decision, EvalRunStatus]:
    gates = judge_all(observed.run.spec.gates, outcome.results)
    verdict = worst(gates)
    sentence = " ".join(_sentence(each) for each in outcome.results)
    succeeded = holds("Succeeded", "Measured", sentence)
    match verdict:
        case Verdict.PASSED:
            state, passed = EvalState.PASSED, holds("Passed", "GatesHold", sentence)
        case Verdict.FAILED:
            state, passed = EvalState.FAILED, fails("Passed", "GateFailed", sentence)
        case Verdict.INCONCLUSIVE:
            message = f"{sentence} The interval contains the bound: more items would decide."
            state, passed = EvalState.INCONCLUSIVE, fails("Passed", "Inconclusive", message)
    status = EvalRunStatus(
        verdict=verdict,
        adapter_digest=outcome.adapter_digest,
        base_model_digest=outcome.base_model_digest,
        results=outcome.results,
        gates=gates,
    )
    return Decision(state, succeeded, passed), status


def _sentence(result: SuiteResult) -> str:
    interval = result.confidence_interval
    return (
        f"{result.suite}: {result.metric} of the base model {result.base:.1f}, of the adapter "
        f"{result.adapter:.1f}, difference {result.difference:+.1f} "
        f"[{interval.lower:+.1f}, {interval.upper:+.1f}] on {result.items} items."
    )


# --- measuring -----------------------------------------------------------------------------------

STATES = {
    Stage.PENDING: EvalState.PENDING,
    Stage.RUNNING: EvalState.RUNNING,
    Stage.WAITING: EvalState.WAITING,
    Stage.RETRYING: EvalState.RETRYING,
    Stage.FAILED: EvalState.ERROR,
}


def _measuring(observed: Observed, settings: Settings, now: datetime) -> Decision:
    run = observed.run
    missing = missing_config_map(observed.missing_config_map, run.metadata)
    step = advance(observed.attempt, run.status, run.spec.backoff_limit, missing, settings, now)
    return Decision(
        state=STATES[step.stage],
        succeeded=step.succeeded,
        passed=fails("Passed", "NoVerdict", "There is no verdict yet."),
        stalled=step.stalled,
        start=step.start,
        requeue_after=step.requeue_after,
    )


# --- status --------------------------------------------------------------------------------------


def _completed(
    observed: Observed, decision: Decision, status: EvalRunStatus, now: datetime
) -> EvalRunStatus:
    run, before = observed.run, observed.run.status
    finished = status.verdict is not None
    memory = remembered_attempts(observed.attempt, decision.start, before, has_result=finished)
    findings = [
        decision.succeeded,
        decision.passed,
        *kstatus(decision.state, decision.succeeded, decision.stalled, finished=finished),
    ]
    return status.model_copy(
        update={
            **memory,
            "observed_generation": run.metadata.generation,
            "state": decision.state,
            "conditions": updated(before.conditions, findings, run.metadata.generation, now),
            "job_name": evaluation_job_name(run, memory["attempt"]),
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
