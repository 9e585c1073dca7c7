"""Reads an EvalRun and everything that belongs to it."""

from __future__ import annotations

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import Outcome
from tunesmith.evalrun.objects import sources_read
from tunesmith.evalrun.plan import Observed
from tunesmith.kube.attempts import AttemptState
from tunesmith.kube.labels import is_controlled_by, owner_labels
from tunesmith.kube.observed_attempt import is_behind, latest_attempt
from tunesmith.kube.parsing import readable
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.policies import Defaults, placed, queued
from tunesmith.kube.reader import Reader


async def observe(reader: Reader, pods: PodHttp, run: EvalRun, given: Defaults) -> Observed:
    run = with_defaults(run, given)
    namespace = run.metadata.namespace
    labels = owner_labels(Kind.EVAL_RUN, run.metadata.name)
    jobs = [
        each
        for each in await reader.list("Job", namespace, labels)
        if is_controlled_by(each, run.metadata)
    ]
    job_pods = await reader.list("Pod", namespace, labels)
    attempt = latest_attempt(jobs, job_pods, run.status, Outcome.EVALUATION)
    progress = None
    if attempt and attempt.state is AttemptState.RUNNING and attempt.pod_address:
        progress = await pods.progress(attempt.pod_address)
    return Observed(
        run,
        attempt=attempt,
        jobs=jobs,
        progress=progress,
        missing_config_map=None if run.status.results else await _missing_config_map(reader, run),
        named_job=await _named_job(reader, run),
        pods=job_pods,
        deadline_seconds=given.deadline_seconds,
    )


def with_defaults(run: EvalRun, given: Defaults) -> EvalRun:
    """The run as if it said what it is given; what it says itself stays."""
    template = placed(run.spec.pod_template, given.trainer)
    spec = run.spec.model_copy(update={"pod_template": template})
    metadata = queued(run.metadata, given.queue)
    return run.model_copy(update={"metadata": metadata, "spec": spec})


def doubts(seen: Observed) -> bool:
    """Whether a Job that status tells of, or the end of its pod, was not seen."""
    if seen.run.status.results:
        return False
    return is_behind(seen.attempt, seen.pods, seen.jobs, seen.run.status)


async def _named_job(reader: Reader, run: EvalRun) -> FineTuneJob | None:
    """The FineTuneJob whose adapter is judged, if the run names one that exists and can be read."""
    adapter = run.spec.adapter
    if adapter is None or adapter.job is None:
        return None
    found = await reader.get("FineTuneJob", run.metadata.namespace, adapter.job)
    return next(iter(readable(FineTuneJob.from_object, [found] if found else [])), None)


async def _missing_config_map(reader: Reader, run: EvalRun) -> str | None:
    """A pod that waits for a ConfigMap does not say so in its status, hence this look."""
    for source in sources_read(run, None):
        location = parse_location(source.uri)
        if location.scheme is not Scheme.CONFIG_MAP:
            continue
        if not await reader.get("ConfigMap", run.metadata.namespace, location.holder):
            return location.holder
    return None
