"""Builds the Job of an attempt of training. ``eval_runs`` has the EvalRuns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_evaluation import Adjustment
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import TrainingPlan
from tunesmith.finetunejob import defaults, memory, sources
from tunesmith.finetunejob.adjustments import adjusted, annotation
from tunesmith.finetunejob.decision import JobStage, Prepared
from tunesmith.kube.attempts import Start
from tunesmith.kube.labels import STAGE, queue_labels
from tunesmith.kube.network import Destination
from tunesmith.kube.sources import planned_registry, registry_variables
from tunesmith.kube.trainer_job import TrainerJob, rendezvous
from tunesmith.settings import Settings

Object = dict[str, Any]

#: Time for a checkpoint after SIGTERM.
GRACE_SECONDS = 120


def training_job(
    job: FineTuneJob,
    start: Start,
    prepared: Prepared,
    plan: MemoryPlan,
    settings: Settings,
    changes: Sequence[Adjustment] = (),
) -> list[Object]:
    """The Job, its plan and, for several pods, their Service, for one attempt.

    ``changes`` are those that earlier verdicts led to.
    """
    spec, name = job.spec, training_job_name(job, start.number)
    return TrainerJob(
        kind=Kind.FINE_TUNE_JOB,
        owner=job.metadata,
        name=name,
        start=start,
        plan=training_plan(job, name, prepared, plan, settings, changes),
        sources=[sources.base_model(job), sources.output(job)],
        also_reaches=frozenset(_reached(job)),
        environment=registry_variables(job.output.oci if job.output else None),
        whole_secrets=[each.secret_ref for each in spec.report_to if each.secret_ref],
        resources=spec.resources,
        nodes=spec.resources.nodes,
        template=spec.pod_template,
        settings=settings,
        active_deadline_seconds=spec.active_deadline_seconds,
        annotations={
            **memory.annotation(plan),
            **annotation(changes),
            **defaults.annotation(job),
        },
        labels={STAGE: JobStage.TRAIN},
        queue=queue_labels(job.metadata),
        grace_seconds=GRACE_SECONDS,
    ).objects()


def _reached(job: FineTuneJob) -> Iterator[Destination]:
    if job.output and job.output.oci:
        yield Destination.REGISTRY
    # TensorBoard's files lie with the artifact.
    if any(each.uri for each in job.spec.report_to):
        yield Destination.TRACKER


def training_job_name(job: FineTuneJob, attempt: int) -> str:
    return f"{job.metadata.name}-train-{attempt}"


def training_plan(
    job: FineTuneJob,
    job_name: str,
    prepared: Prepared,
    plan: MemoryPlan,
    settings: Settings,
    changes: Sequence[Adjustment] = (),
) -> TrainingPlan:
    """What the trainer is to do. Attempts with the same changes make the same result, so that it,
    and the checkpoints on the way to it, are found again."""
    spec, nodes = job.spec, job.spec.resources.nodes
    return TrainingPlan(
        owner=f"{job.metadata.namespace}/{job.metadata.name}",
        base_model=sources.base_model(job, prepared.base_model_revision).planned(),
        prepared=sources.prepared(job, prepared.uri).planned(),
        dataset_uri=spec.dataset.uri,
        dataset=prepared.dataset,
        held_out=spec.dataset.held_out,
        lora=spec.lora,
        training=adjusted(spec.training, changes),
        memory=plan,
        backend=spec.backend,
        report_to=spec.report_to,
        output=sources.output_folder(job).planned(),
        oci=planned_registry(job.output.oci if job.output else None),
        image=spec.pod_template.image or settings.trainer_image,
        nodes=nodes,
        processes_per_node=max(1, spec.resources.gpus),
        rendezvous=rendezvous(job_name) if nodes > 1 else None,
    )
