"""Decides what an AdapterDeployment serves, and says what is really served. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kubernetes.utils.quantity import parse_quantity

from tunesmith.adapterdeployment.objects import (
    CONFIG_DIGEST,
    adapter_path,
    child_name,
    children,
    configuration_digest,
    endpoint,
    pod_labels,
    vllm_configuration,
)
from tunesmith.adapterdeployment.selection import (
    Candidate,
    Selection,
    base_model_name,
    select,
)
from tunesmith.api.adapterdeployment import (
    AdapterDeployment,
    AdapterDeploymentStatus,
    ServedAdapter,
    ServingState,
)
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.kube import pods
from tunesmith.kube.advance import kstatus
from tunesmith.kube.conditions import Finding, fails, holds, updated
from tunesmith.kube.plan import Object, Plan
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings

#: At most this many refusals are listed in status.
MOST_REFUSALS = 100


@dataclass(frozen=True)
class Replica:
    """One vLLM pod and what it says it offers: model name → path of the files."""

    pod: Object
    models: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    deployment: AdapterDeployment
    jobs: list[FineTuneJob] = field(default_factory=list)
    #: The children by kind, raw; those that do not exist are missing.
    children: dict[str, Object] = field(default_factory=dict)
    #: Kinds of children whose name is taken by an object of somebody else.
    foreign: list[str] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What to apply, and what status says."""
    selection = select(observed.deployment, observed.jobs)
    wanted = children(observed.deployment, selection.served, settings)
    status = _status(observed, selection, now)
    ready = status.state in {ServingState.READY, ServingState.SCALED_TO_ZERO}
    return Plan(
        status=status,
        apply=[] if observed.foreign else _differing(wanted, observed.children),
        requeue_after=None if ready else settings.progress_interval,
    )


def _differing(wanted: list[Object], existing: dict[str, Object]) -> list[Object]:
    """Only what is not already as wanted: a pass with nothing to do writes nothing."""
    return [
        each
        for each in wanted
        if each["kind"] not in existing or not contains(existing[each["kind"]], each)
    ]


def contains(actual: object, wanted: object) -> bool:
    """Whether every wanted field is there; what the API server added does not matter.

    Lists must have the same length, as defaults are added inside members, not beside them.
    """
    match wanted, actual:
        case dict(), dict():
            return all(
                contains(actual.get(key), value) or (value in ({}, []) and key not in actual)
                for key, value in wanted.items()
            )
        case list(), list():
            return len(wanted) == len(actual) and all(
                contains(one, other) for one, other in zip(actual, wanted, strict=True)
            )
        case str(), str():
            return actual == wanted or _same_quantity(actual, wanted)
        case _:
            return actual == wanted or (actual is None and wanted == "")


def _same_quantity(one: str, other: str) -> bool:
    """The API server writes quantities its own way: 1024Mi comes back as 1Gi."""
    try:
        return bool(parse_quantity(one) == parse_quantity(other))
    except ValueError:
        return False


def _status(observed: Observed, selection: Selection, now: datetime) -> AdapterDeploymentStatus:
    deployment = observed.deployment
    current = _current_replicas(observed, selection.served)
    served = [_served(each, current) for each in selection.served]
    state, ready, stalled = _judgement(observed, selection, served, current)
    finished = state in {ServingState.READY, ServingState.SCALED_TO_ZERO}
    findings = [ready, *kstatus(state, ready, stalled, finished=finished)]
    return AdapterDeploymentStatus(
        observed_generation=deployment.metadata.generation,
        state=state,
        conditions=updated(
            deployment.status.conditions, findings, deployment.metadata.generation, now
        ),
        endpoint=endpoint(deployment),
        base_model_name=base_model_name(deployment),
        replicas=len(observed.replicas),
        ready_replicas=len([each for each in observed.replicas if pods.is_ready(each.pod)]),
        selector=",".join(f"{key}={value}" for key, value in pod_labels(deployment).items()),
        adapter_count=len(served),
        adapters=served,
        not_served=selection.rejected[:MOST_REFUSALS],
    )


def _current_replicas(observed: Observed, adapters: list[Candidate]) -> list[Replica]:
    """Pods that answer and were started with the present configuration."""
    digest = configuration_digest(vllm_configuration(observed.deployment, adapters))
    return [
        each
        for each in observed.replicas
        if pods.is_ready(each.pod)
        and each.pod["metadata"].get("annotations", {}).get(CONFIG_DIGEST) == digest
    ]


def _served(adapter: Candidate, replicas: list[Replica]) -> ServedAdapter:
    """Counted from what each replica answers: name and path, and so the digest, must be these."""
    path = adapter_path(adapter)
    return ServedAdapter(
        name=adapter.name,
        digest=adapter.digest,
        uri=adapter.uri,
        evaluated_by=adapter.evaluated_by,
        replicas_ready=len([each for each in replicas if each.models.get(adapter.name) == path]),
    )


def _judgement(
    observed: Observed,
    selection: Selection,
    served: list[ServedAdapter],
    current: list[Replica],
) -> tuple[ServingState, Finding, Finding | None]:
    deployment = observed.deployment
    wanted = deployment.spec.replicas
    if observed.foreign:
        message = (
            f"A {' and a '.join(observed.foreign)} named {child_name(deployment)} exists and is "
            "not Tunesmith's: delete it, or use another name for this AdapterDeployment."
        )
        return _waiting(Trouble("NameTaken", message))
    if wanted == 0:
        finding = fails("Ready", "ScaledToZero", "replicas is 0: nothing is served.")
        return ServingState.SCALED_TO_ZERO, finding, None
    proven = min((each.replicas_ready for each in served), default=len(current))
    names = ", ".join(each.name for each in served) or "no adapter yet"
    if len(current) >= wanted and proven >= wanted:
        message = f"{wanted} of {wanted} replicas serve {base_model_name(deployment)} and: {names}."
        return ServingState.READY, holds("Ready", "Serving", message), None
    if trouble := _trouble(observed):
        return _waiting(trouble)
    message = f"{min(len(current), proven)} of {wanted} replicas serve: {names}."
    answering = any(pods.is_ready(each.pod) for each in observed.replicas)
    state = ServingState.UPDATING if answering else ServingState.STARTING
    return state, fails("Ready", str(state), message), None


def _waiting(trouble: Trouble) -> tuple[ServingState, Finding, Finding]:
    return (
        ServingState.WAITING,
        fails("Ready", trouble.reason, trouble.message),
        holds("Stalled", trouble.reason, trouble.message),
    )


def _trouble(observed: Observed) -> Trouble | None:
    found = (pods.trouble(each.pod) for each in observed.replicas)
    return next((each for each in found if each), None) or _refused_pods(observed)


def _refused_pods(observed: Observed) -> Trouble | None:
    """What keeps the Deployment from making pods: a quota, a policy, an unknown account."""
    status = observed.children.get("Deployment", {}).get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = f"The pods cannot be created: {condition.get('message', '')}"
            return Trouble("PodsRefused", message[:2000])
    return None
