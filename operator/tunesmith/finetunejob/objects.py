"""Builds the children of a FineTuneJob: the Job of an attempt. ``eval_runs`` has the EvalRuns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_evaluation import Adjustment
from tunesmith.api.locations import Location, parse_location
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import PlannedDataset, TrainingPlan
from tunesmith.finetunejob.adjustments import adjusted, annotation
from tunesmith.kube.attempts import Start
from tunesmith.kube.trainer_job import TrainerJob, planned_source
from tunesmith.kube.volumes import mount, path_in_pod
from tunesmith.settings import Settings

Object = dict[str, Any]


def training_job(
    job: FineTuneJob, start: Start, settings: Settings, changes: Sequence[Adjustment] = ()
) -> list[Object]:
    """The Job and its plan for one attempt, with the changes that earlier verdicts led to."""
    spec = job.spec
    return TrainerJob(
        kind=Kind.FINE_TUNE_JOB,
        owner=job.metadata,
        name=training_job_name(job, start.number),
        start=start,
        plan=training_plan(job, settings, changes),
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
        annotations=annotation(changes),
    ).objects()


def training_job_name(job: FineTuneJob, attempt: int) -> str:
    return f"{job.metadata.name}-train-{attempt}"


def training_plan(
    job: FineTuneJob, settings: Settings, changes: Sequence[Adjustment] = ()
) -> TrainingPlan:
    """What the trainer is to do. The same for every attempt with the same changes, so that a
    result is found again."""
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
        training=adjusted(spec.training, changes),
        output=planned_source(str(output)),
        image=spec.pod_template.image or settings.trainer_image,
    )


def output_folder(job: FineTuneJob) -> Location:
    """The folder of this very job: its uid keeps a job that is applied anew under the same name
    from finding what the deleted one left."""
    folder = f"{job.metadata.namespace}/{job.metadata.name}/{job.metadata.uid}"
    return parse_location(job.spec.output.uri) / folder
