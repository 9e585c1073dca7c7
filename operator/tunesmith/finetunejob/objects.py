"""Builds the children of a FineTuneJob: the Job of an attempt. ``eval_runs`` has the EvalRuns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_evaluation import Adjustment
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import PlannedDataset, TrainingPlan
from tunesmith.finetunejob import sources
from tunesmith.finetunejob.adjustments import adjusted, annotation
from tunesmith.kube.attempts import Start
from tunesmith.kube.sources import planned_registry, registry_variables
from tunesmith.kube.trainer_job import TrainerJob
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
        sources=[sources.base_model(job), sources.dataset(job), sources.output(job)],
        environment=registry_variables(spec.output.oci),
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
    return TrainingPlan(
        owner=f"{job.metadata.namespace}/{job.metadata.name}",
        base_model=sources.base_model(job).planned(),
        dataset=PlannedDataset(
            **sources.dataset(job).planned().model_dump(), format=spec.dataset.format
        ),
        held_out=spec.dataset.held_out,
        method=spec.method,
        lora=spec.lora,
        training=adjusted(spec.training, changes),
        output=sources.output_folder(job).planned(),
        oci=planned_registry(spec.output.oci),
        image=spec.pod_template.image or settings.trainer_image,
    )
