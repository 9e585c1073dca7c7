"""Merged weights: when adapters are served that way, and the Job that makes them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.api import GROUP
from tunesmith.api.adapterdeployment import AdapterDeployment, Strategy
from tunesmith.api.locations import parse_location
from tunesmith.api.objects import AttemptStatus, Kind, Resources
from tunesmith.api.trainer_contract import MergePlan, PlannedSource
from tunesmith.kube.advance import Advance, advance
from tunesmith.kube.attempts import Attempt, AttemptState, Start, latest_attempt
from tunesmith.kube.trainer_job import TrainerJob
from tunesmith.kube.volumes import mount, path_in_pod
from tunesmith.settings import Settings

Object = dict[str, Any]

#: Labels of such a Job: the version, and what is done with it.
VERSION = f"{GROUP}/adapter-version"
PURPOSE = f"{GROUP}/purpose"
BACKOFF_LIMIT = 3


@dataclass(frozen=True)
class Choice:
    """How the adapters are served, and why."""

    strategy: Strategy
    reason: str


def choose(deployment: AdapterDeployment, names: int) -> Choice:
    """The rule: a single variant is merged, more than one share a server."""
    match deployment.spec.strategy:
        case Strategy.AUTO if names == 1 and deployment.spec.base_replicas == 0:
            return Choice(
                Strategy.MERGED,
                "One adapter: merged weights are as fast as the base model. The base model is not "
                "served; a second adapter changes this to Adapters.",
            )
        case Strategy.AUTO:
            reason = f"{names} adapters share one server." if names else "No adapter yet."
            return Choice(Strategy.ADAPTERS, reason)
        case chosen:
            return Choice(chosen, "spec.strategy says so.")


class Purpose(StrEnum):
    """What a Job of an AdapterDeployment does with a version."""

    MERGE = "merge"
    REMOVAL = "removal"


@dataclass(frozen=True)
class Errand:
    """What is known of the Job that does something with one version."""

    candidate: Candidate
    attempt: Attempt | None
    done: bool

    def next(self, settings: Settings, now: datetime) -> Advance:
        """What follows while it is not done."""
        return advance(self.attempt, AttemptStatus(), BACKOFF_LIMIT, None, settings, now)


def errand(
    candidate: Candidate,
    purpose: Purpose,
    jobs: list[Object],
    job_pods: list[Object],
    *,
    done: bool = False,
) -> Errand:
    """What is known of an errand; ``done`` says that its result was seen elsewhere."""
    wanted = {VERSION: candidate.version, PURPOSE: str(purpose)}
    own = [job for job in jobs if wanted.items() <= job["metadata"]["labels"].items()]
    attempt = latest_attempt(own, job_pods)
    succeeded = attempt is not None and attempt.state is AttemptState.SUCCEEDED
    # The Job outlives its pod: that it is complete is enough, folders come and go as a whole.
    complete = any(_is_complete(job) for job in own)
    return Errand(candidate, attempt, succeeded or complete or done)


def _is_complete(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)


def merged_uri(candidate: Candidate) -> str:
    """Beside the adapter; like the adapter's, the folder never changes."""
    return f"{candidate.uri}-merged"


def merged_path(candidate: Candidate) -> str:
    return f"{candidate.path}-merged"


def merge_job(
    deployment: AdapterDeployment, candidate: Candidate, start: Start, settings: Settings
) -> list[Object]:
    """The Job that merges one version, and its plan. It runs on CPU: merging is reading."""
    spec = deployment.spec
    objects = TrainerJob(
        kind=Kind.ADAPTER_DEPLOYMENT,
        owner=deployment.metadata,
        name=f"{deployment.metadata.name}-merge-{candidate.version}-{start.number}",
        start=start,
        plan=MergePlan(
            owner=f"{deployment.metadata.namespace}/{deployment.metadata.name}",
            base_model=planned(spec.base_model.uri),
            adapter=planned(candidate.uri),
            adapter_digest=candidate.digest,
            base_model_digest=candidate.base_model_digest,
            output=planned(merged_uri(candidate)),
        ),
        mounts=[mount(spec.base_model.uri), mount(merged_uri(candidate), writable=True)],
        secrets=[spec.base_model.secret_ref],
        resources=Resources(gpus=0, cpu=spec.resources.cpu, memory=spec.resources.memory),
        # The pods' image and environment are vLLM's.
        template=spec.pod_template.model_copy(update={"image": None, "env": []}),
        image=settings.trainer_image,
        image_pull_policy=settings.image_pull_policy,
    ).objects()
    return labelled(objects, candidate, Purpose.MERGE)


def labelled(objects: list[Object], candidate: Candidate, purpose: Purpose) -> list[Object]:
    for each in objects:
        each["metadata"]["labels"] |= {VERSION: candidate.version, PURPOSE: str(purpose)}
    return objects


def planned(uri: str) -> PlannedSource:
    return PlannedSource(uri=uri, path=path_in_pod(parse_location(uri)))
