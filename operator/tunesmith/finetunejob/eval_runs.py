"""The EvalRuns of a FineTuneJob: the one before training, and the one that judges."""

from __future__ import annotations

from typing import Any

from tunesmith.api import API_VERSION
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import AdapterSource, EvalRun, EvalRunSpec, EvalState
from tunesmith.api.evaluation_suite import (
    Benchmark,
    EvaluationDataset,
    Gate,
    PromptedBase,
    PromptExamples,
    QuestionFormat,
    Suite,
)
from tunesmith.api.finetunejob import Artifact, FineTuneJob
from tunesmith.api.job_evaluation import HELD_OUT_SUITE
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import HELD_OUT_FILE, PROMPT_EXAMPLES_FILE
from tunesmith.finetunejob.sources import output, output_folder
from tunesmith.kube.conditions import find, is_true
from tunesmith.kube.labels import child_metadata
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings

Object = dict[str, Any]

GENERAL_KNOWLEDGE_SUITE = "general-knowledge"


def preflight_name(job: FineTuneJob) -> str:
    """Ten characters more than the job's: a job's name has at most 40, an EvalRun's 52."""
    return f"{job.metadata.name}-preflight"


def eval_run_name(job: FineTuneJob, artifact: Artifact) -> str:
    """Named by the adapter's digest: another adapter, another EvalRun."""
    return f"{job.metadata.name}-{artifact.digest.removeprefix('sha256:')[:8]}"


def preflight_run(job: FineTuneJob, settings: Settings) -> Object:
    """The EvalRun of the base model alone, on the examples that this job will hold out.

    What the base model answers is kept: the EvalRun after training does not ask again.
    """
    dataset = job.spec.dataset
    held_out = _held_out_suite(
        job,
        EvaluationDataset(
            uri=dataset.uri,
            secret_ref=dataset.secret_ref,
            # Of other files, an EvalRun's digest is about the rows.
            digest=dataset.digest if _is_https(dataset.uri) else None,
            format=QuestionFormat(dataset.format),
            held_out=dataset.held_out,
        ),
        PromptedBase(system_prompts=job.spec.evaluation.system_prompts),
    )
    # Ratings of the base model alone would help nobody: both sides are rated in one run.
    further = [each for each in _further_suites(job, settings) if not each.mt_bench]
    return _eval_run(job, preflight_name(job), [held_out, *further])


def eval_run(
    job: FineTuneJob, artifact: Artifact, dataset: DatasetReceipt | None, settings: Settings
) -> Object:
    """The EvalRun that decides whether this adapter may be served."""
    wanted, secret = job.spec.evaluation, job.spec.output.secret_ref
    held_out = _held_out_suite(
        job,
        EvaluationDataset(
            uri=f"{artifact.uri}/{HELD_OUT_FILE}",
            secret_ref=secret,
            format=QuestionFormat.MESSAGES,
            digest=dataset.held_out_digest if dataset else None,
        ),
        PromptedBase(
            examples=PromptExamples(
                uri=f"{artifact.uri}/{PROMPT_EXAMPLES_FILE}", secret_ref=secret
            ),
            system_prompts=wanted.system_prompts,
        ),
    )
    gate = Gate(
        suite=HELD_OUT_SUITE,
        minimum_difference=wanted.minimum_difference,
        on_inconclusive=wanted.on_inconclusive,
    )
    return _eval_run(
        job,
        eval_run_name(job, artifact),
        [held_out, *_further_suites(job, settings)],
        adapter=AdapterSource(uri=artifact.uri, digest=artifact.digest, secret_ref=secret),
        gates=[gate, *wanted.gates],
    )


def trouble(run: EvalRun) -> Trouble | None:
    """What keeps an EvalRun from its result, and what helps."""
    if not is_true(run.status.conditions, "Stalled"):
        return None
    name, stalled = run.metadata.name, find(run.status.conditions, "Stalled")
    assert stalled is not None
    if has_failed(run) and run.status.failure:
        message = (
            f"EvalRun {name} failed: {run.status.failure.message} "
            f"`kubectl delete evalrun {name}` has it made again."
        )
        return Trouble(stalled.reason, message)
    return Trouble(stalled.reason, f"EvalRun {name} waits: {stalled.message}")


def has_failed(run: EvalRun) -> bool:
    """For good: no attempt follows."""
    return run.status.state is EvalState.ERROR


def how_far(run: EvalRun) -> str:
    """Such as " (40%)"."""
    percent = run.status.progress.percent if run.status.progress else None
    return f" ({percent}%)" if percent is not None else ""


def _held_out_suite(
    job: FineTuneJob, dataset: EvaluationDataset, prompted_base: PromptedBase
) -> Suite:
    wanted = job.spec.evaluation
    return Suite(
        name=HELD_OUT_SUITE,
        dataset=dataset,
        metric=wanted.metric,
        prompted_base=prompted_base if wanted.prompted_base else None,
        max_items=wanted.max_items,
        max_new_tokens=wanted.max_new_tokens,
    )


def _further_suites(job: FineTuneJob, settings: Settings) -> list[Suite]:
    """The job's own, and the platform's benchmark where the job has none."""
    own = job.spec.evaluation.suites
    platform = settings.general_knowledge
    has_one = any(each.benchmark or each.name == GENERAL_KNOWLEDGE_SUITE for each in own)
    if platform is None or has_one:
        return own
    benchmark = Benchmark(name="mmlu", size=platform.size, data=platform.data)
    return [*own, Suite(name=GENERAL_KNOWLEDGE_SUITE, benchmark=benchmark)]


def _eval_run(
    job: FineTuneJob,
    name: str,
    suites: list[Suite],
    adapter: AdapterSource | None = None,
    gates: list[Gate] | None = None,
) -> Object:
    spec = EvalRunSpec(
        base_model=job.spec.base_model,
        adapter=adapter,
        suites=suites,
        gates=gates or [],
        output_uri=output_folder(job).within("evaluations").uri,
        # The same folder for all jobs of the namespace with this output: one base model, asked
        # the same, answers the same.
        base_results_uri=output(job).within(f"{job.metadata.namespace}/base-results").uri,
        output_secret_ref=job.spec.output.secret_ref,
        resources=job.spec.resources,
        backoff_limit=job.spec.backoff_limit,
        pod_template=job.spec.pod_template,
    )
    return {
        "apiVersion": API_VERSION,
        "kind": str(Kind.EVAL_RUN),
        "metadata": child_metadata(Kind.FINE_TUNE_JOB, job.metadata, name),
        "spec": spec.to_json(),
    }


def _is_https(uri: str) -> bool:
    return parse_location(uri).scheme is Scheme.HTTPS
