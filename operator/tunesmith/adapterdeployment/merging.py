"""Merged weights: when adapters are served that way, and the Job that makes them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.adapterdeployment.errands import Purpose, labelled
from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.objects import Kind, PodTemplate, Resources
from tunesmith.api.serving_status import Strategy
from tunesmith.api.trainer_contract import MergePlan
from tunesmith.kube.attempts import Start
from tunesmith.kube.sources import Role, Source
from tunesmith.kube.trainer_job import TrainerJob
from tunesmith.settings import Settings

Object = dict[str, Any]


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


def merged_uri(candidate: Candidate) -> str:
    """Beside the adapter; like the adapter's, the folder never changes."""
    return f"{candidate.uri}-merged"


def merged_path(candidate: Candidate) -> str:
    return f"{candidate.path}-merged"


def merge_job(
    deployment: AdapterDeployment,
    candidate: Candidate,
    start: Start,
    template: PodTemplate,
    settings: Settings,
) -> list[Object]:
    """The Job that merges one version, and its plan. It runs on CPU: merging is reading."""
    spec = deployment.spec
    base_model = Source(spec.base_model.uri, Role.BASE_MODEL, spec.base_model.secret_ref)
    output = Source(merged_uri(candidate), Role.OUTPUT, writable=True)
    objects = TrainerJob(
        kind=Kind.ADAPTER_DEPLOYMENT,
        owner=deployment.metadata,
        name=f"{deployment.metadata.name}-merge-{candidate.version}-{start.number}",
        start=start,
        plan=MergePlan(
            owner=f"{deployment.metadata.namespace}/{deployment.metadata.name}",
            base_model=base_model.planned(),
            adapter=Source(candidate.uri, Role.ADAPTER).planned(),
            adapter_digest=candidate.digest,
            base_model_digest=candidate.base_model_digest,
            output=output.planned(),
        ),
        # The adapter lies beside the output.
        sources=[base_model, output],
        resources=Resources(gpus=0, cpu=spec.resources.cpu, memory=spec.resources.memory),
        template=template,
        settings=settings,
    ).objects()
    return labelled(objects, candidate, Purpose.MERGE)
