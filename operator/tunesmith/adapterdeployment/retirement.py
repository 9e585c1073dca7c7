"""Versions that are served no more, and the Job that deletes their files. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from tunesmith.adapterdeployment.errands import (
    PLACE,
    PURPOSE,
    VERSION,
    Errand,
    Purpose,
    errand,
    labelled,
)
from tunesmith.adapterdeployment.rollout import Version
from tunesmith.adapterdeployment.selection import Candidate, Selection
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.objects import Kind, PodTemplate, Resources
from tunesmith.api.serving_status import VersionState
from tunesmith.api.trainer_contract import RemovalPlan
from tunesmith.kube.attempts import Start
from tunesmith.kube.sources import Role, Source
from tunesmith.kube.trainer_job import TrainerJob
from tunesmith.settings import Settings

Object = dict[str, Any]


def retired(
    deployment: AdapterDeployment,
    selection: Selection,
    versions: list[Version],
    held: AbstractSet[str] | None,
) -> list[Candidate]:
    """Versions whose files nobody needs: superseded, kept no longer, and held by no replica.

    ``selection`` has those, too, whose deletion was begun: it may have to be tried again.
    ``held`` are the models that replicas still have and the digests that other deployments serve;
    None while that is not known, and then nobody retires: vLLM dies of a file that is gone.
    """
    if not deployment.spec.adapters.delete_files or held is None:
        return []
    listed = {each.candidate.digest for each in versions}
    kept = deployment.spec.adapters.keep_versions
    promoted = {each.candidate.model for each in versions if each.state is VersionState.PROMOTED}
    return [
        each
        for candidates in selection.served.values()
        # Merged weights keep no other version at hand. Its files are kept all the same.
        for each in superseded(candidates, promoted)[: -kept or None]
        if each.digest not in listed and each.model not in held and each.digest not in held
    ]


def superseded(candidates: list[Candidate], promoted: AbstractSet[str]) -> list[Candidate]:
    """The versions of a name before the one that answers. Newer ones are not: a name that is
    pinned to an old version will go back to them."""
    places = [place for place, each in enumerate(candidates) if each.model in promoted]
    return candidates[: max(places, default=0)]


def deleted(jobs: list[Object]) -> frozenset[tuple[str, str]]:
    """Version and place of what is deleted, or will be: a Job that was made is not called back."""
    labels = [each["metadata"]["labels"] for each in jobs]
    return frozenset(
        (each[VERSION], each[PLACE])
        for each in labels
        if each.get(PURPOSE) == Purpose.REMOVAL and {VERSION, PLACE} <= each.keys()
    )


def removals(candidates: list[Candidate], jobs: list[Object], pods: list[Object]) -> list[Errand]:
    """What is not done yet of the deletions."""
    found = [errand(each, Purpose.REMOVAL, jobs, pods) for each in candidates]
    return [each for each in found if not each.done]


def removal_job(
    deployment: AdapterDeployment,
    candidate: Candidate,
    start: Start,
    template: PodTemplate,
    settings: Settings,
) -> list[Object]:
    """The Job that deletes the folder of one version, and its plan."""
    adapter = Source(candidate.uri, Role.ADAPTER, writable=True)
    objects = TrainerJob(
        kind=Kind.ADAPTER_DEPLOYMENT,
        owner=deployment.metadata,
        name=f"{deployment.metadata.name}-remove-{candidate.version}-{start.number}",
        start=start,
        plan=RemovalPlan(
            owner=f"{deployment.metadata.namespace}/{deployment.metadata.name}",
            adapter=adapter.planned(),
            adapter_digest=candidate.digest,
        ),
        sources=[adapter],
        resources=Resources(gpus=0, cpu="50m", memory="512Mi"),
        template=template,
        settings=settings,
    ).objects()
    return labelled(objects, candidate, Purpose.REMOVAL)
