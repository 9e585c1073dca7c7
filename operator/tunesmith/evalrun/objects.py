"""Builds the Job of one attempt of an EvalRun."""

from __future__ import annotations

from typing import Any

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.locations import parse_location
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import (
    EvaluationPlan,
    PlannedDataset,
    PlannedSuite,
)
from tunesmith.kube.attempts import Start
from tunesmith.kube.trainer_job import TrainerJob, planned_source
from tunesmith.kube.volumes import Mount, mount, path_in_pod
from tunesmith.settings import Settings

Object = dict[str, Any]


def evaluation_job(run: EvalRun, start: Start, settings: Settings) -> list[Object]:
    """The Job and its plan for one attempt."""
    spec = run.spec
    return TrainerJob(
        kind=Kind.EVAL_RUN,
        owner=run.metadata,
        name=evaluation_job_name(run, start.number),
        start=start,
        plan=evaluation_plan(run),
        mounts=_mounts(run),
        secrets=[spec.base_model.secret_ref],
        resources=spec.resources,
        template=spec.pod_template,
        image=settings.trainer_image,
        image_pull_policy=settings.image_pull_policy,
    ).objects()


def evaluation_job_name(run: EvalRun, attempt: int) -> str:
    return f"{run.metadata.name}-eval-{attempt}"


def evaluation_plan(run: EvalRun) -> EvaluationPlan:
    """What the evaluator is to do. The same for every attempt."""
    spec = run.spec
    return EvaluationPlan(
        owner=f"{run.metadata.namespace}/{run.metadata.name}",
        base_model=planned_source(spec.base_model.uri),
        adapter=planned_source(spec.adapter.uri),
        adapter_digest=spec.adapter.digest,
        suites=[
            PlannedSuite(
                suite=suite,
                dataset=PlannedDataset(
                    uri=suite.dataset.uri,
                    path=path_in_pod(parse_location(suite.dataset.uri)),
                    format=suite.dataset.format,
                    digest=suite.dataset.digest,
                ),
            )
            for suite in spec.suites
        ],
        output=planned_source(f"{spec.output_uri}/{run.metadata.name}")
        if spec.output_uri
        else None,
    )


def _mounts(run: EvalRun) -> list[Mount]:
    spec = run.spec
    reads = [spec.base_model.uri, spec.adapter.uri, *(each.dataset.uri for each in spec.suites)]
    writes = [mount(spec.output_uri, writable=True)] if spec.output_uri else []
    return [*(mount(uri) for uri in reads), *writes]
