"""What is applied, deleted and called, so that what is there becomes as it was decided. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pydantic import ValidationError

from tunesmith.adapterdeployment.autoscaling import scaled_objects
from tunesmith.adapterdeployment.decision import (
    Decision,
    Observed,
    merged_config_map,
    runs_beside_the_base,
)
from tunesmith.adapterdeployment.objects import (
    CALLED_FOR,
    Role,
    ServerPlan,
    child_name,
    children,
    config_map_of,
)
from tunesmith.api.serving_contract import DESIRED_FILE, DesiredState, state_digest
from tunesmith.kube import pods
from tunesmith.kube.comparison import contains, marked
from tunesmith.kube.plan import Object
from tunesmith.settings import Settings

#: A pod that did not take up the desired state is called again after this many seconds.
CALL_AGAIN_SECONDS = 5


def apply_list(observed: Observed, decision: Decision, settings: Settings) -> list[Object]:
    """Children that are not as wanted: a pass with nothing to do writes nothing."""
    if observed.foreign:
        return []
    wanted = [
        each
        for server in decision.servers
        for each in _children(observed, decision, server, settings)
    ]
    wanted += scaled_objects(observed.deployment, settings, keda=observed.keda)
    return [each for each in map(marked, wanted) if not _is_as_wanted(observed, each)]


def _children(
    observed: Observed, decision: Decision, server: ServerPlan, settings: Settings
) -> Iterator[Object]:
    """Of a server that is only scaled down its Deployment; of one that is to go first all else."""
    running = observed.child("Deployment", server.role)
    only_scaled = server.role is Role.BASE and not server.replicas
    goes = server.role is Role.ADAPTERS and _serves_what_was_withdrawn(observed, decision)
    for each in children(observed.deployment, server, running, observed.given.server, settings):
        is_deployment = each["kind"] == "Deployment"
        if not (goes if is_deployment else only_scaled):
            yield each


def delete_list(
    observed: Observed, decision: Decision, *, autoscaled: bool
) -> list[tuple[str, str]]:
    """KEDA must not go on scaling what is to stay, nor pods serve an adapter that was withdrawn."""
    name = child_name(observed.deployment)
    found = []
    if ("ScaledObject", name) in observed.children and not autoscaled:
        found.append(("ScaledObject", name))
    if _serves_what_was_withdrawn(observed, decision):
        found.append(("Deployment", name))
    return found


def _serves_what_was_withdrawn(observed: Observed, decision: Decision) -> bool:
    """Whether running pods have weights with an adapter that may not be served any more.

    Such pods go at once: others that take their place may not find one, or not start. The version
    of a name in adapters.named is replaced by writing another digest there: its pods stay until
    then.
    """
    running = observed.child("Deployment", Role.ADAPTERS)
    may_stay = {
        merged_config_map(observed.deployment, each) for each in decision.selection.candidates()
    }
    if running is None or config_map_of(running) in may_stay:
        return False
    if runs_beside_the_base(observed):
        return decision.main is None
    name = _merged_name(observed, running)
    named = {each.name for each in observed.deployment.spec.adapters.named}
    return name not in named & decision.selection.served.keys()


def _merged_name(observed: Observed, running: Object) -> str:
    """The served name whose version is part of the running pods' weights."""
    files = observed.children.get(("ConfigMap", config_map_of(running) or ""), {})
    desired = files.get("data", {}).get(DESIRED_FILE)
    try:
        return DesiredState.model_validate_json(desired or "").base.name.partition("@")[0]
    except ValidationError:
        return ""


def _is_as_wanted(observed: Observed, wanted: Object) -> bool:
    existing = observed.children.get((wanted["kind"], wanted["metadata"]["name"]))
    return existing is not None and contains(existing, wanted)


def calls(
    observed: Observed, decision: Decision, now: datetime
) -> list[tuple[str, dict[str, str]]]:
    """Pods whose kubelet is to bring them the new files now, and not within a minute.

    An annotation that changes makes the kubelet look at a pod, and at the volumes it has.
    """
    found = []
    for server in decision.servers:
        digest = state_digest(server.desired_text)
        value = f"{digest}.{int(now.timestamp()) // CALL_AGAIN_SECONDS}"
        for replica in observed.of_role(server.role):
            behind = replica.report is not None and replica.report.desired != digest
            annotations = replica.pod["metadata"].get("annotations", {})
            if not replica.reads(server.config_map) or pods.is_leaving(replica.pod):
                continue
            if behind and annotations.get(CALLED_FOR) != value:
                found.append((str(replica.pod["metadata"]["name"]), {CALLED_FOR: value}))
    return found
