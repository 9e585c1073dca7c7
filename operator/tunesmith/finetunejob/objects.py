"""Builds the children of a FineTuneJob: the Job of an attempt, and the EvalRun that judges."""

from __future__ import annotations

from typing import Any

from tunesmith.api import API_VERSION
from tunesmith.api.evalrun import (
    AdapterSource,
    EvalRunSpec,
    EvaluationDataset,
    Gate,
    Suite,
)
from tunesmith.api.finetunejob import Artifact, DatasetReceipt, FineTuneJob
from tunesmith.api.locations import Location, parse_location
from tunesmith.api.objects import DatasetFormat, Kind
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PlannedDataset,
    TrainingPlan,
)
from tunesmith.kube.attempts import Start
from tunesmith.kube.labels import child_metadata
from tunesmith.kube.trainer_job import TrainerJob, planned_source
from tunesmith.kube.volumes import mount, path_in_pod
from tunesmith.settings import Settings

Object = dict[str, Any]

HELD_OUT_SUITE = "held-out"


def training_job(job: FineTuneJob, start: Start, settings: Settings) -> list[Object]:
    """The Job and its plan for one attempt."""
    spec = job.spec
    return TrainerJob(
        kind=Kind.FINE_TUNE_JOB,
        owner=job.metadata,
        name=training_job_name(job, start.number),
        start=start,
        plan=training_plan(job, settings),
        mounts=[
            mount(spec.base_model.uri),
            mount(spec.dataset.uri),
            mount(spec.output.uri, writable=True),
        ],
        secrets=[spec.base_model.secret_ref, spec.dataset.secret_ref],
        resources=spec.resources,
        template=spec.pod_template,
        image=settings.trainer_image,
        image_pull_policy=settings.image_pull_policy,
        active_deadline_seconds=spec.active_deadline_seconds,
    ).objects()


def training_job_name(job: FineTuneJob, attempt: int) -> str:
    return f"{job.metadata.name}-train-{attempt}"


def training_plan(job: FineTuneJob, settings: Settings) -> TrainingPlan:
    """What the trainer is to do. The same for every attempt, so that a result is found again."""
    spec = job.spec
    output = output_folder(job)
    return TrainingPlan(
        owner=f"{job.metadata.namespace}/{job.metadata.name}",
        base_model=planned_source(spec.base_model.uri),
        dataset=PlannedDataset(
            uri=spec.dataset.uri,
            path=path_in_pod(parse_location(spec.dataset.uri)),
            format=spec.dataset.format,
        ),
        held_out=spec.dataset.held_out,
        method=spec.method,
        lora=spec.lora,
        training=spec.training,
        output=planned_source(str(output)),
        image=spec.pod_template.image or settings.trainer_image,
    )


def output_folder(job: FineTuneJob) -> Location:
    """The folder of this very job: its uid keeps a job that is applied anew under the same name
    from finding what the deleted one left."""
    folder = f"{job.metadata.namespace}/{job.metadata.name}/{job.metadata.uid}"
    return parse_location(job.spec.output.uri) / folder


def eval_run_name(job: FineTuneJob, artifact: Artifact) -> str:
    """Named by the adapter's digest: another adapter, another EvalRun."""
    return f"{job.metadata.name}-{artifact.digest.removeprefix('sha256:')[:8]}"


def eval_run(job: FineTuneJob, artifact: Artifact, dataset: DatasetReceipt | None) -> Object:
    """The EvalRun that decides whether this adapter may be served."""
    wanted = job.spec.evaluation
    spec = EvalRunSpec(
        base_model=job.spec.base_model,
        adapter=AdapterSource(uri=artifact.uri, digest=artifact.digest),
        suites=[
            Suite(
                name=HELD_OUT_SUITE,
                dataset=EvaluationDataset(
                    uri=f"{artifact.uri}/{HELD_OUT_FILE}",
                    format=DatasetFormat.MESSAGES,
                    digest=dataset.held_out_digest if dataset else None,
                ),
                metric=wanted.metric,
                max_items=wanted.max_items,
                max_new_tokens=wanted.max_new_tokens,
            )
        ],
        gates=[Gate(suite=HELD_OUT_SUITE, minimum_difference=wanted.minimum_difference)],
        output_uri=str(output_folder(job) / "evaluations"),
        resources=job.spec.resources,
        backoff_limit=job.spec.backoff_limit,
        pod_template=job.spec.pod_template,
    )
    return {
        "apiVersion": API_VERSION,
        "kind": str(Kind.EVAL_RUN),
        "metadata": child_metadata(Kind.FINE_TUNE_JOB, job.metadata, eval_run_name(job, artifact)),
        "spec": spec.to_json(),
    }
