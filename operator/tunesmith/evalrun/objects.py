"""Builds the Job of one attempt of an EvalRun."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.evaluation_suite import EvaluationDataset, Suite
from tunesmith.api.locations import parse_location
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import (
    EvaluationPlan,
    PlannedQuestions,
    PlannedSuite,
)
from tunesmith.evalrun.verdict import gates_of
from tunesmith.kube.attempts import Start
from tunesmith.kube.trainer_job import TrainerJob, planned_source
from tunesmith.kube.volumes import Mount, mount, path_in_pod
from tunesmith.settings import Settings

Object = dict[str, Any]


@dataclass(frozen=True)
class JudgedAdapter:
    """An adapter by place and content."""

    uri: str
    digest: str


def evaluation_job(
    run: EvalRun, adapter: JudgedAdapter | None, start: Start, settings: Settings
) -> list[Object]:
    """The Job and its plan for one attempt."""
    spec = run.spec
    return TrainerJob(
        kind=Kind.EVAL_RUN,
        owner=run.metadata,
        name=evaluation_job_name(run, start.number),
        start=start,
        plan=evaluation_plan(run, adapter),
        mounts=_mounts(run, adapter),
        secrets=[
            spec.base_model.secret_ref,
            *(each.dataset.secret_ref for each in spec.suites if each.dataset),
        ],
        judge_secrets=[each.mt_bench.judge.secret_ref for each in spec.suites if each.mt_bench],
        resources=spec.resources,
        template=spec.pod_template,
        image=settings.trainer_image,
        image_pull_policy=settings.image_pull_policy,
    ).objects()


def evaluation_job_name(run: EvalRun, attempt: int) -> str:
    return f"{run.metadata.name}-eval-{attempt}"


def evaluation_plan(run: EvalRun, adapter: JudgedAdapter | None) -> EvaluationPlan:
    """What the evaluator is to do. The same for every attempt."""
    spec, merged = run.spec, run.spec.merged_model
    return EvaluationPlan(
        owner=f"{run.metadata.namespace}/{run.metadata.name}",
        base_model=planned_source(spec.base_model.uri),
        adapter=planned_source(adapter.uri) if adapter else None,
        merged_model=planned_source(merged.uri) if merged else None,
        digest=adapter.digest if adapter else merged.digest if merged else None,
        suites=[_planned_suite(run, each) for each in spec.suites],
        output=planned_source(f"{spec.output_uri}/{run.metadata.name}")
        if spec.output_uri
        else None,
        base_results=planned_source(spec.base_results_uri) if spec.base_results_uri else None,
    )


def _planned_suite(run: EvalRun, suite: Suite) -> PlannedSuite:
    examples = suite.prompted_base.examples if suite.prompted_base else None
    data = suite.benchmark.data if suite.benchmark else None
    return PlannedSuite(
        suite=suite,
        questions=_questions(suite),
        prompt_examples=_file(examples.uri, digest=examples.digest) if examples else None,
        benchmark_data=planned_source(data) if data else None,
        gates=tuple(gate for gate in gates_of(run) if gate.suite == suite.name),
    )


def _questions(suite: Suite) -> PlannedQuestions | None:
    match suite.dataset, suite.mt_bench:
        case EvaluationDataset() as dataset, _:
            return _file(
                dataset.uri,
                format=dataset.format,
                digest=dataset.digest,
                held_out=dataset.held_out,
            )
        case _, None:
            return None
        case _, mt_bench:
            return _file(mt_bench.questions)


def _file(uri: str, **more: Any) -> PlannedQuestions:
    return PlannedQuestions(uri=uri, path=path_in_pod(parse_location(uri)), **more)


def uris_read(run: EvalRun) -> Iterator[str]:
    """Everything that the run reads, but the adapter."""
    yield run.spec.base_model.uri
    if run.spec.merged_model:
        yield run.spec.merged_model.uri
    for suite in run.spec.suites:
        if suite.dataset:
            yield suite.dataset.uri
        if suite.prompted_base and suite.prompted_base.examples:
            yield suite.prompted_base.examples.uri
        if suite.benchmark and suite.benchmark.data:
            yield suite.benchmark.data
        if suite.mt_bench:
            yield suite.mt_bench.questions


def _mounts(run: EvalRun, adapter: JudgedAdapter | None) -> list[Mount]:
    spec = run.spec
    reads = [*uris_read(run), *([adapter.uri] if adapter else [])]
    writes = [each for each in (spec.output_uri, spec.base_results_uri) if each]
    return [
        *(mount(uri) for uri in reads),
        *(mount(uri, writable=True) for uri in writes),
    ]
