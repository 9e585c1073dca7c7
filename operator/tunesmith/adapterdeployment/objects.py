"""Builds the children of an AdapterDeployment: for each server its ConfigMap, Service, Deployment
and PodDisruptionBudget."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from tunesmith.adapterdeployment.configuration import options_digest, proxy_files
from tunesmith.adapterdeployment.serving_pod import (
    SIDECAR,
    START_SECONDS,
    ServingPod,
    serving_pod,
)
from tunesmith.api import GROUP
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.locations import Scheme
from tunesmith.api.objects import Kind, PodTemplate
from tunesmith.api.serving_contract import DESIRED_FILE, PROXY_PORT, SERVER_FILE, DesiredState
from tunesmith.kube.labels import child_metadata, noted, owner_labels
from tunesmith.kube.policies import placed
from tunesmith.kube.volumes import Mount, claim
from tunesmith.settings import Settings

Object = dict[str, Any]

SERVICE_PORT = 80
#: Label that tells the pods of the two servers apart.
SERVES = f"{GROUP}/serves"
#: On pods: the options that vLLM was started with.
OPTIONS_DIGEST = f"{GROUP}/options-digest"
#: On pods: what a policy gave them, as JSON.
GIVEN = f"{GROUP}/given"
#: On pods: the desired state that the kubelet was last called for.
CALLED_FOR = f"{GROUP}/desired-state"


class Role(StrEnum):
    """Which requests a server is for."""

    ADAPTERS = "adapters"
    BASE = "base"


@dataclass(frozen=True)
class ServerPlan:
    """One vLLM server, in as many replicas as wanted."""

    role: Role
    config_map: str
    options: str
    desired: DesiredState
    replicas: int
    mounts: list[Mount]
    #: The version that is part of its weights, as vLLM knows it; None where adapters are beside
    #: them.
    merged: str | None = None

    @property
    def options_digest(self) -> str:
        return options_digest(self.options)

    @property
    def desired_text(self) -> str:
        return self.desired.model_dump_json(by_alias=True, exclude_none=True)


def child_name(deployment: AdapterDeployment, role: Role = Role.ADAPTERS) -> str:
    """The suffix keeps it from meeting a user's own objects."""
    suffix = {Role.ADAPTERS: "vllm", Role.BASE: "base"}[role]
    return f"{deployment.metadata.name}-{suffix}"


def endpoint(deployment: AdapterDeployment) -> str:
    return f"http://{child_name(deployment)}.{deployment.metadata.namespace}.svc/v1"


def pod_labels(deployment: AdapterDeployment, role: Role = Role.ADAPTERS) -> dict[str, str]:
    return {**owner_labels(Kind.ADAPTER_DEPLOYMENT, deployment.metadata.name), SERVES: str(role)}


def children(
    deployment: AdapterDeployment,
    server: ServerPlan,
    running: Object | None,
    given: PodTemplate,
    settings: Settings,
) -> list[Object]:
    """Everything that one server needs. Equal input gives equal objects, in every detail."""
    return [
        _config_map(deployment, server),
        _service(deployment, server.role),
        _deployment(deployment, server, running, given, settings),
        _disruption_budget(deployment, server.role),
    ]


def _metadata(deployment: AdapterDeployment, name: str) -> Object:
    return child_metadata(Kind.ADAPTER_DEPLOYMENT, deployment.metadata, name)


def _config_map(deployment: AdapterDeployment, server: ServerPlan) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(deployment, server.config_map),
        "data": {
            DESIRED_FILE: server.desired_text,
            SERVER_FILE: server.options,
            **proxy_files(),
        },
    }


def _service(deployment: AdapterDeployment, role: Role) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment, child_name(deployment, role)),
        "spec": {
            "selector": pod_labels(deployment, role),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": PROXY_PORT}],
        },
    }


def _deployment(
    deployment: AdapterDeployment,
    server: ServerPlan,
    running: Object | None,
    given: PodTemplate,
    settings: Settings,
) -> Object:
    labels = pod_labels(deployment, server.role)
    kept = given_to_running(server, running, given)
    kind = ServingPod(
        labels=labels,
        annotations={OPTIONS_DIGEST: server.options_digest, **_noted(kept)},
        config_map=server.config_map,
        mounts=server.mounts,
        template=placed(deployment.spec.pod_template, kept),
        image=_own_image(server, running, settings),
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(deployment, child_name(deployment, server.role)),
        "spec": {
            "replicas": server.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                # A new pod answers before an old one goes.
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "progressDeadlineSeconds": START_SECONDS + 600,
            "template": serving_pod(deployment, kind, settings),
        },
    }


def _disruption_budget(deployment: AdapterDeployment, role: Role) -> Object:
    """A drain takes one replica at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(deployment, child_name(deployment, role)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": pod_labels(deployment, role)},
        },
    }


def _own_image(server: ServerPlan, running: Object | None, settings: Settings) -> str:
    """The image of sidecar and proxy. A new version of the operator alone restarts no vLLM:
    running pods keep theirs until they are rolled for another reason."""
    template = _template(running)
    if not _was_started_with(template, server):
        return settings.operator_image
    containers = template.get("spec", {}).get("initContainers", [])
    found = (str(each["image"]) for each in containers if each["name"] == SIDECAR)
    return next(found, settings.operator_image)


def given_to_running(server: ServerPlan, running: Object | None, given: PodTemplate) -> PodTemplate:
    """What a policy gives to the pods. One that changes restarts no vLLM: running pods keep what
    they were given until they are rolled for another reason."""
    template = _template(running)
    if not _was_started_with(template, server):
        return given
    try:
        return PodTemplate.model_validate(noted(template, GIVEN) or {})
    except ValidationError:
        return given


def _noted(given: PodTemplate) -> dict[str, str]:
    """An annotation with it; none where nothing is given."""
    told = given.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {GIVEN: json.dumps(told, sort_keys=True)} if told else {}


def _template(running: Object | None) -> Object:
    """The pod template of a Deployment."""
    template: Object = (running or {}).get("spec", {}).get("template", {})
    return {"metadata": {}, **template}


def _was_started_with(template: Object, server: ServerPlan) -> bool:
    annotations = template["metadata"].get("annotations", {})
    return bool(annotations.get(OPTIONS_DIGEST) == server.options_digest)


def config_map_of(running: Object | None) -> str | None:
    """The ConfigMap that the pods of a Deployment read."""
    for each in _template(running).get("spec", {}).get("volumes", []):
        if each["name"] == "configuration":
            return str(each["configMap"]["name"])
    return None


def keeping_claims(server: ServerPlan, running: Object | None) -> ServerPlan:
    """The server with the claims that its running pods mount and do not need any more: no reason
    to roll them. Pods that are rolled for another reason do without."""
    kept = _claims_of(running)
    needed = {each for each in server.mounts if each.location.scheme is Scheme.PVC}
    holders = {each.location.holder for each in kept}
    stay = _was_started_with(_template(running), server)
    if not stay or not {each.location.holder for each in needed} <= holders:
        return server
    return replace(server, mounts=[*server.mounts, *kept])


def _claims_of(running: Object | None) -> list[Mount]:
    """Claims that the running pods mount."""
    return [
        claim(each["persistentVolumeClaim"]["claimName"])
        for each in _template(running).get("spec", {}).get("volumes", [])
        if each["name"].startswith("source-") and "persistentVolumeClaim" in each
    ]
