"""Builds the Job of one attempt of an EvalRun."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.evaluation_suite import EvaluationDataset, Suite
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind, SecretReference
from tunesmith.api.trainer_contract import (
    HUB_TOKEN_VARIABLE,
    JUDGE_KEY_VARIABLE,
    EvaluationPlan,
    PlannedQuestions,
    PlannedSuite,
)
from tunesmith.evalrun.verdict import gates_of
from tunesmith.kube.attempts import Start
from tunesmith.kube.labels import queue_labels
from tunesmith.kube.network import Destination
from tunesmith.kube.pod_spec import key_from
from tunesmith.kube.sources import Role, Source
from tunesmith.kube.trainer_job import TrainerJob
from tunesmith.settings import Settings

Object = dict[str, Any]


@dataclass(frozen=True)
class JudgedAdapter:
    """An adapter by place and content, and the Secret that opens the place."""

    uri: str
    digest: str
    secret: SecretReference | None = None


@dataclass(frozen=True)
class SuiteSources:
    """What one suite reads."""

    questions: Source | None
    examples: Source | None
    benchmark_data: Source | None

    def all(self) -> list[Source]:
        return [each for each in (self.questions, self.examples, self.benchmark_data) if each]


def evaluation_job(
    run: EvalRun,
    adapter: JudgedAdapter | None,
    start: Start,
    settings: Settings,
    deadline_seconds: int | None = None,
) -> list[Object]:
    """The Job and its plan for one attempt."""
    spec = run.spec
    return TrainerJob(
        kind=Kind.EVAL_RUN,
        owner=run.metadata,
        name=evaluation_job_name(run, start.number),
        start=start,
        plan=evaluation_plan(run, adapter),
        sources=[*sources_read(run, adapter), *_outputs(run)],
        also_reaches=frozenset(_reached(run)),
        environment=_environment(run),
        resources=spec.resources,
        template=spec.pod_template,
        settings=settings,
        active_deadline_seconds=deadline_seconds,
        queue=queue_labels(run.metadata),
    ).objects()


def evaluation_job_name(run: EvalRun, attempt: int) -> str:
    return f"{run.metadata.name}-eval-{attempt}"


def evaluation_plan(run: EvalRun, adapter: JudgedAdapter | None) -> EvaluationPlan:
    """What the evaluator is to do. The same for every attempt."""
    judged, merged = _adapter(adapter), _merged_model(run)
    output, base_results = _output(run), _base_results(run)
    named = adapter or run.spec.merged_model
    return EvaluationPlan(
        owner=f"{run.metadata.namespace}/{run.metadata.name}",
        base_model=_base_model(run).planned(),
        adapter=judged.planned() if judged else None,
        merged_model=merged.planned() if merged else None,
        digest=named.digest if named else None,
        suites=[
            _planned_suite(run, suite, suite_sources(number, suite))
            for number, suite in enumerate(run.spec.suites, start=1)
        ],
        output=output.within(run.metadata.name).planned() if output else None,
        base_results=base_results.planned() if base_results else None,
    )


def _planned_suite(run: EvalRun, suite: Suite, sources: SuiteSources) -> PlannedSuite:
    examples = suite.prompted_base.examples if suite.prompted_base else None
    return PlannedSuite(
        suite=suite,
        questions=_planned_questions(suite, sources.questions),
        prompt_examples=_file(sources.examples, digest=examples.digest)
        if sources.examples and examples
        else None,
        benchmark_data=sources.benchmark_data.planned() if sources.benchmark_data else None,
        gates=tuple(gate for gate in gates_of(run) if gate.suite == suite.name),
    )


def _planned_questions(suite: Suite, source: Source | None) -> PlannedQuestions | None:
    match suite.dataset:
        case _ if source is None:
            return None
        case EvaluationDataset() as dataset:
            return _file(
                source,
                format=dataset.format,
                # Of what is behind https://, the digest is about the file itself.
                digest=None if source.content_digest else dataset.digest,
                held_out=dataset.held_out,
            )
        case _:
            return _file(source)


def _file(source: Source, **more: Any) -> PlannedQuestions:
    return PlannedQuestions(**source.planned().model_dump(), **more)


# --- what it reads and writes --------------------------------------------------------------------


def sources_read(run: EvalRun, adapter: JudgedAdapter | None) -> Iterator[Source]:
    """Everything that the run reads. The adapter is left out while it is not known."""
    yield _base_model(run)
    yield from (each for each in (_merged_model(run), _adapter(adapter)) if each)
    for number, suite in enumerate(run.spec.suites, start=1):
        yield from suite_sources(number, suite).all()


def suite_sources(number: int, suite: Suite) -> SuiteSources:
    """What a suite reads. Suites are told apart by number: their names are not for variables."""
    role = f"SUITE_{number}"
    dataset, benchmark, mt_bench = suite.dataset, suite.benchmark, suite.mt_bench
    questions = None
    if dataset:
        is_https = parse_location(dataset.uri).scheme is Scheme.HTTPS
        digest = dataset.digest if is_https else None
        questions = Source(dataset.uri, role, dataset.secret_ref, digest)
    elif mt_bench:
        questions = Source(mt_bench.questions, role)
    examples = suite.prompted_base.examples if suite.prompted_base else None
    return SuiteSources(
        questions,
        Source(examples.uri, f"{role}_EXAMPLES", examples.secret_ref) if examples else None,
        Source(benchmark.data, f"{role}_DATA") if benchmark and benchmark.data else None,
    )


def _base_model(run: EvalRun) -> Source:
    model = run.spec.base_model
    return Source(model.uri, Role.BASE_MODEL, model.secret_ref, model.digest)


def _adapter(adapter: JudgedAdapter | None) -> Source | None:
    return Source(adapter.uri, Role.ADAPTER, adapter.secret) if adapter else None


def _merged_model(run: EvalRun) -> Source | None:
    merged = run.spec.merged_model
    return Source(merged.uri, Role.MERGED_MODEL, merged.secret_ref) if merged else None


def _output(run: EvalRun) -> Source | None:
    return _written(run, run.spec.output_uri)


def _base_results(run: EvalRun) -> Source | None:
    return _written(run, run.spec.base_results_uri)


def _written(run: EvalRun, uri: str | None) -> Source | None:
    return Source(uri, Role.OUTPUT, run.spec.output_secret_ref, writable=True) if uri else None


def _outputs(run: EvalRun) -> list[Source]:
    return [each for each in (_output(run), _base_results(run)) if each]


def _reached(run: EvalRun) -> Iterator[Destination]:
    if _fetches_benchmarks(run):
        yield Destination.HUB
    if any(each.mt_bench for each in run.spec.suites):
        yield Destination.JUDGE


def _fetches_benchmarks(run: EvalRun) -> bool:
    return any(each.benchmark and not each.benchmark.data for each in run.spec.suites)


def _environment(run: EvalRun) -> list[Object]:
    """The judge's key, and the hub's token for benchmarks, which lm-eval fetches by itself."""
    judges = [each.mt_bench.judge.secret_ref for each in run.spec.suites if each.mt_bench]
    model = run.spec.base_model
    on_hub = parse_location(model.uri).scheme is Scheme.HUB
    tokens = [model.secret_ref] if on_hub and _fetches_benchmarks(run) else []
    return [*key_from(JUDGE_KEY_VARIABLE, judges), *key_from(HUB_TOKEN_VARIABLE, tokens)]
