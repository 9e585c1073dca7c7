"""What follows on training: the EvalRun of the adapter, its verdict, and what comes of it. Pure."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_evaluation import (
    HELD_OUT_SUITE,
    Adjustment,
    GateVerdict,
    JobEvaluation,
    OnFailure,
)
from tunesmith.api.job_status import Artifact, JobState
from tunesmith.api.reasons import ConditionReason
from tunesmith.api.verdict import Verdict
from tunesmith.finetunejob.adjustments import adjusted, next_change
from tunesmith.finetunejob.decision import Decision, Observed, Results
from tunesmith.finetunejob.eval_runs import eval_run, eval_run_name, how_far, trouble
from tunesmith.finetunejob.recommendation import Evidence, recommend, sentence
from tunesmith.finetunejob.training import again, trained
from tunesmith.kube.conditions import fails, holds
from tunesmith.settings import Settings


def after_training(
    observed: Observed, found: Results, artifact: Artifact, settings: Settings
) -> Decision:
    """What to do about an adapter: have it judged, and act on the verdict."""
    job, evaluation = observed.job, evaluated(observed, found, artifact)
    run = observed.eval_run(evaluation.name)
    decision = Decision(
        JobState.EVALUATING,
        succeeded=trained(artifact),
        ready=fails("Ready", ConditionReason.EVALUATING, f"EvalRun {evaluation.name} decides."),
        evaluation=evaluation,
        adjustments=found.adjustments,
    )
    if evaluation.verdict:
        return _judged(decision, evaluation, observed, settings)
    if run is None:
        made = eval_run(job, artifact, found.dataset, settings)
        return replace(decision, eval_run=made)
    return _being_judged(decision, run)


def evaluated(observed: Observed, found: Results, artifact: Artifact) -> JobEvaluation:
    """The verdict on exactly this adapter; without one, who is to give it."""
    name = eval_run_name(observed.job, artifact)
    seen = _evaluation(observed.job, found, artifact, observed.eval_run(name))
    return seen or JobEvaluation(name=name)


def _evaluation(
    job: FineTuneJob, found: Results, artifact: Artifact, run: EvalRun | None
) -> JobEvaluation | None:
    """The verdict on exactly this adapter, from its EvalRun or as it was once seen."""
    remembered = job.status.evaluation
    if run and run.status.verdict and run.status.adapter_digest == artifact.digest:
        return _from_run(job, found, artifact, run)
    if remembered and remembered.verdict and remembered.adapter_digest == artifact.digest:
        return remembered
    return None


def _from_run(job: FineTuneJob, found: Results, artifact: Artifact, run: EvalRun) -> JobEvaluation:
    status = run.status
    result = next((each for each in status.results if each.suite == HELD_OUT_SUITE), None)
    evidence = Evidence(
        training=adjusted(job.spec.training, found.adjustments),
        suites=run.spec.suites,
        results=status.results,
        gates=status.gates,
        eval_losses=found.progress.eval_losses if found.progress else [],
        dataset=found.dataset,
        held_out_fraction=job.spec.dataset.held_out.fraction,
        on_inconclusive=job.spec.evaluation.on_inconclusive,
    )
    return JobEvaluation(
        name=run.metadata.name,
        verdict=status.verdict,
        adapter_digest=artifact.digest,
        metric=result.metric if result else None,
        base=result.base if result else None,
        prompted_base=result.prompted_base if result else None,
        adapter=result.adapter if result else None,
        difference=result.difference if result else None,
        confidence_interval=result.confidence_interval if result else None,
        gates=[GateVerdict(suite=each.suite, verdict=each.verdict) for each in status.gates],
        recommendation=None if status.verdict is Verdict.PASSED else recommend(evidence),
    )


def _judged(
    decision: Decision, evaluation: JobEvaluation, observed: Observed, settings: Settings
) -> Decision:
    scores = _scores(evaluation)
    advice = f" {sentence(evaluation.recommendation)}" if evaluation.recommendation else ""
    match evaluation.verdict:
        case Verdict.PASSED:
            ready = holds(
                "Ready", ConditionReason.EVALUATION_PASSED, f"The adapter may be served{scores}."
            )
            return replace(decision, state=JobState.READY, ready=ready)
        case Verdict.FAILED:
            where = _where(evaluation, Verdict.FAILED)
            message = f"The adapter is not served: it failed{where}{scores}.{advice}"
            if observed.job.spec.evaluation.on_failure is OnFailure.RETRY:
                change = next_change(observed.job.spec, decision.adjustments, evaluation)
                if isinstance(change, Adjustment):
                    return again(observed, [*decision.adjustments, change], settings)
                message = f"{message} {change}"
            ready = fails("Ready", ConditionReason.EVALUATION_FAILED, message)
        case _:
            where = _where(evaluation, Verdict.INCONCLUSIVE)
            message = f"The adapter is not served: there is no decision{where}{scores}.{advice}"
            ready = fails("Ready", ConditionReason.EVALUATION_INCONCLUSIVE, message)
    stalled = holds("Stalled", ready.reason, ready.message)
    return replace(decision, state=JobState.REJECTED, ready=ready, stalled=stalled)


def _scores(evaluation: JobEvaluation) -> str:
    """Such as " (TokenF1: base model 40.0, adapter 60.0)"."""
    if evaluation.base is None or evaluation.adapter is None:
        return ""
    sides = [f"base model {evaluation.base:.1f}"]
    if evaluation.prompted_base is not None:
        sides.append(f"under its best system prompt {evaluation.prompted_base:.1f}")
    sides.append(f"adapter {evaluation.adapter:.1f}")
    return f" ({evaluation.metric}: {', '.join(sides)})"


def _where(evaluation: JobEvaluation, verdict: Verdict) -> str:
    """Such as " on held-out and mmlu"."""
    names = [each.suite for each in evaluation.gates if each.verdict is verdict]
    return f" on {' and '.join(names)}" if names else ""


def _being_judged(decision: Decision, run: EvalRun) -> Decision:
    if waits := trouble(run):
        message = f"{waits.message} The adapter is kept."
        return replace(
            decision,
            state=JobState.WAITING,
            ready=fails("Ready", waits.reason, message),
            stalled=holds("Stalled", waits.reason, message),
        )
    message = f"EvalRun {run.metadata.name} compares adapter and base model{how_far(run)}."
    return replace(decision, ready=fails("Ready", ConditionReason.EVALUATING, message))
