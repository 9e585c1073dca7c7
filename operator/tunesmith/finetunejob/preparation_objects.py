"""Builds the Job of an attempt of preparation: the data's sources, and no GPU. Pure."""

from __future__ import annotations

from typing import Any

from kubernetes.utils.quantity import parse_quantity

from tunesmith.api.evaluation_suite import QuestionFormat
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import DatasetFormat, Kind, Resources
from tunesmith.api.trainer_contract import Hardware, PlannedDataset, PreparationPlan
from tunesmith.finetunejob import defaults, sources
from tunesmith.finetunejob.decision import JobStage
from tunesmith.finetunejob.preparation import preparation_job_name
from tunesmith.kube.attempts import Start
from tunesmith.kube.labels import STAGE
from tunesmith.kube.sources import Role, Source
from tunesmith.kube.trainer_job import TrainerJob
from tunesmith.settings import Settings

Object = dict[str, Any]

#: Enough to count the tokens of some hundred thousand examples. CPU is not limited: this is only
#: what a node must have left, and a whole core would keep jobs waiting for each other.
DEFAULT_CPU, DEFAULT_MEMORY = "250m", "4Gi"


def preparation_job(job: FineTuneJob, start: Start, settings: Settings) -> list[Object]:
    """The Job and its plan for one attempt."""
    spec = job.spec
    return TrainerJob(
        kind=Kind.FINE_TUNE_JOB,
        owner=job.metadata,
        name=preparation_job_name(job.metadata.name, start.number),
        start=start,
        plan=preparation_plan(job, settings),
        sources=[
            sources.base_model(job),
            sources.dataset(job),
            *(source for source, _ in evaluation_sets(job)),
            sources.output(job),
        ],
        resources=Resources(
            gpus=0,
            cpu=spec.resources.cpu or DEFAULT_CPU,
            memory=spec.resources.memory or DEFAULT_MEMORY,
        ),
        template=spec.pod_template,
        settings=settings,
        active_deadline_seconds=spec.active_deadline_seconds,
        annotations=defaults.annotation(job),
        labels={STAGE: JobStage.PREPARE},
    ).objects()


def preparation_plan(job: FineTuneJob, settings: Settings) -> PreparationPlan:
    """What is to be prepared. The same for every attempt, so that what is there is found again."""
    spec, dataset = job.spec, job.spec.dataset
    return PreparationPlan(
        owner=f"{job.metadata.namespace}/{job.metadata.name}",
        base_model=sources.base_model(job).planned(),
        dataset=_planned(sources.dataset(job), dataset.format),
        held_out=dataset.held_out,
        near_duplicates=dataset.near_duplicates,
        decontaminate_against=[_planned(*each) for each in evaluation_sets(job)],
        max_lost_tokens=dataset.max_lost_tokens,
        review_examples=dataset.review.examples,
        method=spec.method,
        lora=spec.lora,
        training=spec.training,
        hardware=_hardware(job, settings),
        output=sources.output_folder(job).planned(),
    )


def config_maps_read(job: FineTuneJob) -> list[str]:
    """Those that the preparation reads, by name."""
    places = [sources.dataset(job), *(source for source, _ in evaluation_sets(job))]
    locations = [parse_location(each.uri) for each in places]
    return [each.holder for each in locations if each.scheme is Scheme.CONFIG_MAP]


def evaluation_sets(job: FineTuneJob) -> list[tuple[Source, DatasetFormat]]:
    """Files that training must share no text with: those named, and what the job itself will ask.

    Only those on claims and in ConfigMaps; a benchmark's questions are not a file that is there.
    """
    named = [(uri, DatasetFormat.AUTO) for uri in job.spec.dataset.decontaminate_against]
    asked = [
        (suite.dataset.uri, _FORMATS.get(suite.dataset.format, DatasetFormat.AUTO))
        for suite in job.spec.evaluation.suites
        if suite.dataset and parse_location(suite.dataset.uri).scheme in _ON_VOLUMES
    ]
    sets = dict(named + asked).items()
    return [(Source(uri, Role.DATASET), format_) for uri, format_ in sets]


_ON_VOLUMES = {Scheme.PVC, Scheme.CONFIG_MAP}
_FORMATS = {
    QuestionFormat.MESSAGES: DatasetFormat.MESSAGES,
    QuestionFormat.ALPACA: DatasetFormat.ALPACA,
}


def _planned(source: Source, format_: DatasetFormat) -> PlannedDataset:
    return PlannedDataset(**source.planned().model_dump(), format=format_)


def _hardware(job: FineTuneJob, settings: Settings) -> Hardware:
    asked = job.spec.resources
    return Hardware(
        gpus=asked.gpus,
        nodes=asked.nodes,
        gpu_memory_bytes=_bytes(asked.gpu_memory or settings.gpu_memory) if asked.gpus else None,
        memory_bytes=_bytes(asked.memory) if asked.memory else None,
    )


def _bytes(quantity: str) -> int:
    return int(parse_quantity(quantity))
