"""Reads an EvalRun and everything that belongs to it, live."""

from __future__ import annotations

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind
from tunesmith.evalrun.objects import sources_read
from tunesmith.evalrun.plan import Observed
from tunesmith.kube.attempts import AttemptState
from tunesmith.kube.cluster import Cluster
from tunesmith.kube.labels import is_controlled_by, owner_labels
from tunesmith.kube.observed_attempt import latest_attempt
from tunesmith.kube.parsing import readable
from tunesmith.kube.pod_http import PodHttp


async def observe(cluster: Cluster, pods: PodHttp, run: EvalRun) -> Observed:
    namespace = run.metadata.namespace
    labels = owner_labels(Kind.EVAL_RUN, run.metadata.name)
    jobs = [
        each
        for each in await cluster.list("Job", namespace, labels)
        if is_controlled_by(each, run.metadata)
    ]
    job_pods = await cluster.list("Pod", namespace, labels)
    attempt = latest_attempt(jobs, job_pods, run.status.failure)
    progress = None
    if attempt and attempt.state is AttemptState.RUNNING and attempt.pod_address:
        progress = await pods.progress(attempt.pod_address)
    return Observed(
        run,
        attempt,
        jobs,
        progress,
        await _missing_config_map(cluster, run),
        await _named_job(cluster, run),
    )


async def _named_job(cluster: Cluster, run: EvalRun) -> FineTuneJob | None:
    """The FineTuneJob whose adapter is judged, if the run names one that exists and can be read."""
    adapter = run.spec.adapter
    if adapter is None or adapter.job is None:
        return None
    found = await cluster.get("FineTuneJob", run.metadata.namespace, adapter.job)
    return next(iter(readable(FineTuneJob.from_object, [found] if found else [])), None)


async def _missing_config_map(cluster: Cluster, run: EvalRun) -> str | None:
    """A pod that waits for a ConfigMap does not say so in its status, hence this look."""
    for source in sources_read(run, None):
        location = parse_location(source.uri)
        if location.scheme is not Scheme.CONFIG_MAP:
            continue
        if not await cluster.get("ConfigMap", run.metadata.namespace, location.holder):
            return location.holder
    return None
