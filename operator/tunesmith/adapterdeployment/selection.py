"""Which adapters may be served: trained, passed for exactly that digest, and of this base. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.api.adapterdeployment import AdapterDeployment, RejectedAdapter
from tunesmith.api.evalrun import Verdict
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import parse_location
from tunesmith.kube.conditions import find, is_true


@dataclass(frozen=True)
class Candidate:
    """An adapter that may be served."""

    name: str
    uri: str
    digest: str
    rank: int
    evaluated_by: str


@dataclass(frozen=True)
class Selection:
    """The selected jobs, sorted by name into those that are served and those that are not."""

    served: list[Candidate]
    rejected: list[RejectedAdapter]


def select(deployment: AdapterDeployment, jobs: Iterable[FineTuneJob]) -> Selection:
    """Judge every job that the selector chose."""
    served, rejected = [], []
    for job in sorted(jobs, key=lambda each: each.metadata.name):
        match _judge(deployment, job):
            case Candidate() as candidate:
                served.append(candidate)
            case RejectedAdapter() as refusal:
                rejected.append(refusal)
    return Selection(served, rejected)


def base_model_name(deployment: AdapterDeployment) -> str:
    """The name under which the base answers: given, or the last part of the model's uri."""
    location = parse_location(deployment.spec.base_model.uri)
    last = (location.path or location.holder).rsplit("/", 1)[-1]
    return deployment.spec.served_model_name or last


def _judge(deployment: AdapterDeployment, job: FineTuneJob) -> Candidate | RejectedAdapter:
    name, artifact, evaluation = job.metadata.name, job.status.artifact, job.status.evaluation
    if job.metadata.deletion_timestamp:
        return RejectedAdapter(
            name=name, reason="BeingDeleted", message="The job is being deleted."
        )
    if job.spec.base_model.uri != deployment.spec.base_model.uri:
        message = (
            f"The job tunes {job.spec.base_model.uri}; this deployment serves "
            f"{deployment.spec.base_model.uri}."
        )
        return RejectedAdapter(name=name, reason="OtherBaseModel", message=message)
    if name == base_model_name(deployment):
        message = "The base model is served under that name: set servedModelName to another one."
        return RejectedAdapter(name=name, reason="NameTaken", message=message)
    passed = (
        artifact
        and evaluation
        and evaluation.verdict is Verdict.PASSED
        and evaluation.adapter_digest == artifact.digest
        and is_true(job.status.conditions, "Ready")
    )
    if not passed or not artifact or not evaluation:
        ready = find(job.status.conditions, "Ready")
        return RejectedAdapter(
            name=name,
            reason=ready.reason if ready else "NotTrained",
            message=(ready.message if ready else "The job has not begun.")[:1024],
        )
    return Candidate(name, artifact.uri, artifact.digest, artifact.rank, evaluation.name)
