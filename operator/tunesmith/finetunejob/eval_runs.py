"""The EvalRuns of a FineTuneJob: the one before training, and the one that judges."""

from __future__ import annotations

from typing import Any

from tunesmith.api import API_VERSION
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import (
    AdapterSource,
    EvalRun,
    EvalRunSpec,
    EvalState,
    MergedModelSource,
)
from tunesmith.api.evaluation_suite import (
    Benchmark,
    EvaluationDataset,
    Gate,
    PromptedBase,
    PromptExamples,
    QuestionFormat,
    Suite,
)
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_evaluation import HELD_OUT_SUITE
from tunesmith.api.job_status import Artifact, ArtifactKind
from tunesmith.api.objects import Kind, Resources
from tunesmith.api.trainer_contract import HELD_OUT_FILE, PROMPT_EXAMPLES_FILE
from tunesmith.finetunejob.decision import Prepared
from tunesmith.finetunejob.sources import output, output_folder
from tunesmith.kube.conditions import find, is_true
from tunesmith.kube.labels import child_metadata, queue_labels
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


def preflight_run(job: FineTuneJob, prepared: Prepared, settings: Settings) -> Object:
    """The EvalRun of the base model alone, on the examples that are held out.

    What the base model answers is kept: the EvalRun after training does not ask again.
    """
    held_out = _held_out_suite(job, prepared.uri, prepared.dataset)
    # Ratings of the base model alone would help nobody: both sides are rated in one run.
    further = [each for each in _further_suites(job, settings) if not each.mt_bench]
    return _eval_run(job, preflight_name(job), [held_out, *further])


def eval_run(
    job: FineTuneJob, artifact: Artifact, dataset: DatasetReceipt | None, settings: Settings
) -> Object:
    """The EvalRun that decides whether this adapter may be served, or this model used."""
    wanted = job.spec.evaluation
    gate = Gate(
        suite=HELD_OUT_SUITE,
        minimum_difference=wanted.minimum_difference,
        on_inconclusive=wanted.on_inconclusive,
    )
    return _eval_run(
        job,
        eval_run_name(job, artifact),
        [_held_out_suite(job, artifact.uri, dataset), *_further_suites(job, settings)],
        artifact=artifact,
        gates=[gate, *wanted.gates],
    )


def is_over(run: EvalRun) -> bool:
    """Whether it has measured, or never will."""
    return is_true(run.status.conditions, "Succeeded") or has_failed(run)


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


def _held_out_suite(job: FineTuneJob, folder: str, dataset: DatasetReceipt | None) -> Suite:
    """The held-out examples of a folder, and those of the training side to choose a prompt on.

    Prepared data and artifact hold the same ones, so that both runs ask the same.
    """
    wanted, secret = job.spec.evaluation, job.output_secret
    prompted_base = PromptedBase(
        examples=PromptExamples(uri=f"{folder}/{PROMPT_EXAMPLES_FILE}", secret_ref=secret),
        system_prompts=wanted.system_prompts,
    )
    return Suite(
        name=HELD_OUT_SUITE,
        dataset=EvaluationDataset(
            uri=f"{folder}/{HELD_OUT_FILE}",
            secret_ref=secret,
            format=QuestionFormat.MESSAGES,
            digest=dataset.held_out_digest if dataset else None,
        ),
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
    artifact: Artifact | None = None,
    gates: list[Gate] | None = None,
) -> Object:
    adapter, merged_model = _judged(job, artifact) if artifact else (None, None)
    asked = job.spec.resources
    spec = EvalRunSpec(
        base_model=job.spec.base_model,
        adapter=adapter,
        merged_model=merged_model,
        suites=suites,
        gates=gates or [],
        output_uri=output_folder(job).within("evaluations").uri,
        # The same folder for all jobs of the namespace with this output: one base model, asked
        # the same, answers the same.
        base_results_uri=output(job).within(f"{job.metadata.namespace}/base-results").uri,
        output_secret_ref=job.output_secret,
        resources=Resources(gpus=min(1, asked.gpus), cpu=asked.cpu, memory=asked.memory),
        backoff_limit=job.spec.backoff_limit,
        pod_template=job.spec.pod_template,
    )
    metadata = child_metadata(Kind.FINE_TUNE_JOB, job.metadata, name)
    # Its GPU is counted by the same queue.
    metadata["labels"] |= queue_labels(job.metadata)
    return {
        "apiVersion": API_VERSION,
        "kind": str(Kind.EVAL_RUN),
        "metadata": metadata,
        "spec": spec.to_json(),
    }


def _judged(
    job: FineTuneJob, artifact: Artifact
) -> tuple[AdapterSource | None, MergedModelSource | None]:
    place = {"uri": artifact.uri, "digest": artifact.digest}
    secret = job.output_secret
    if artifact.kind is ArtifactKind.MODEL:
        return None, MergedModelSource(**place, secret_ref=secret)
    return AdapterSource(**place, secret_ref=secret), None
