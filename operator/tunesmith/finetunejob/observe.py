"""Reads a FineTuneJob and everything that belongs to it, live."""

from __future__ import annotations

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind
from tunesmith.finetunejob.decision import Observed
from tunesmith.kube.attempts import AttemptState, latest_attempt
from tunesmith.kube.cluster import Cluster
from tunesmith.kube.labels import is_controlled_by, owner_labels
from tunesmith.kube.parsing import readable
from tunesmith.kube.pod_http import PodHttp


async def observe(cluster: Cluster, pods: PodHttp, job: FineTuneJob) -> Observed:
    namespace, name = job.metadata.namespace, job.metadata.name
    labels = owner_labels(Kind.FINE_TUNE_JOB, name)
    jobs = [
        each
        for each in await cluster.list("Job", namespace, labels)
        if is_controlled_by(each, job.metadata)
    ]
    job_pods = await cluster.list("Pod", namespace, labels)
    attempt = latest_attempt(jobs, job_pods, job.status.failure)
    progress = None
    if attempt and attempt.state is AttemptState.RUNNING and attempt.pod_address:
        progress = await pods.progress(attempt.pod_address)
    runs = await cluster.list("EvalRun", namespace, labels)
    eval_runs = readable(
        EvalRun.from_object, (each for each in runs if is_controlled_by(each, job.metadata))
    )
    return Observed(
        job, attempt, jobs, progress, eval_runs, await _missing_config_map(cluster, job)
    )


async def _missing_config_map(cluster: Cluster, job: FineTuneJob) -> str | None:
    """A pod that waits for a ConfigMap does not say so in its status, hence this look."""
    location = parse_location(job.spec.dataset.uri)
    if location.scheme is not Scheme.CONFIG_MAP:
        return None
    found = await cluster.get("ConfigMap", job.metadata.namespace, location.holder)
    return None if found else location.holder
