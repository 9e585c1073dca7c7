"""Reads a FineTuneJob and everything that belongs to it."""

from __future__ import annotations

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import Outcome
from tunesmith.finetunejob.decision import JobStage, Observed
from tunesmith.finetunejob.defaults import with_defaults
from tunesmith.finetunejob.preparation_objects import config_maps_read
from tunesmith.kube.attempts import AttemptState
from tunesmith.kube.cluster import Object
from tunesmith.kube.labels import STAGE, is_controlled_by, owner_labels
from tunesmith.kube.observed_attempt import is_behind, latest_attempt
from tunesmith.kube.parsing import readable
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.policies import Defaults
from tunesmith.kube.reader import Reader


async def observe(reader: Reader, pods: PodHttp, job: FineTuneJob, given: Defaults) -> Observed:
    namespace, name = job.metadata.namespace, job.metadata.name
    labels = owner_labels(Kind.FINE_TUNE_JOB, name)
    stages: dict[str, list[Object]] = {stage: [] for stage in JobStage}
    for each in await reader.list("Job", namespace, labels):
        if is_controlled_by(each, job.metadata):
            stages[each["metadata"]["labels"].get(STAGE, JobStage.TRAIN)].append(each)
    job = with_defaults(job, given, (each for jobs in stages.values() for each in jobs))
    job_pods = await reader.list("Pod", namespace, labels)
    attempt = latest_attempt(stages[JobStage.TRAIN], job_pods, job.status, Outcome.TRAINING)
    progress = None
    if attempt and attempt.state is AttemptState.RUNNING and attempt.pod_address:
        progress = await pods.progress(attempt.pod_address)
    runs = await reader.list("EvalRun", namespace, labels)
    preparing = stages[JobStage.PREPARE]
    return Observed(
        job,
        attempt=attempt,
        jobs=stages[JobStage.TRAIN],
        progress=progress,
        eval_runs=readable(
            EvalRun.from_object, (each for each in runs if is_controlled_by(each, job.metadata))
        ),
        missing_config_map=None if is_prepared(job) else await _missing_config_map(reader, job),
        preparation=latest_attempt(
            preparing, job_pods, job.status.preparation, Outcome.PREPARATION
        ),
        preparation_jobs=preparing,
        pods=job_pods,
    )


def is_prepared(job: FineTuneJob) -> bool:
    """Whether status tells of prepared data."""
    return job.status.preparation is not None and job.status.preparation.uri is not None


def doubts(seen: Observed) -> bool:
    """Whether a Job that status tells of, or the end of its pod, was not seen."""
    job = seen.job
    before = job.status.preparation
    if before and not is_prepared(job):
        return is_behind(seen.preparation, seen.pods, seen.preparation_jobs, before)
    if job.status.artifact and not (
        seen.attempt and seen.attempt.number > (job.status.attempt or 0)
    ):
        return False
    return is_behind(seen.attempt, seen.pods, seen.jobs, job.status)


async def _missing_config_map(reader: Reader, job: FineTuneJob) -> str | None:
    """A pod that waits for a ConfigMap does not say so in its status, hence this look."""
    for name in config_maps_read(job):
        if not await reader.get("ConfigMap", job.metadata.namespace, name):
            return name
    return None
