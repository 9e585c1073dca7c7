"""What all our pods have in common: no privileges, no API token, the user's overlay. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.objects import PodTemplate, Resources, SecretReference
from tunesmith.api.trainer_contract import SCRATCH_FOLDER
from tunesmith.kube.pods import MAIN_CONTAINER

Object = dict[str, Any]

#: The user and group that our images are built for; no entry in /etc/passwd is needed.
USER_ID = 65532
GPU = "nvidia.com/gpu"


def pod_security() -> Object:
    """What the Pod Security Standard "restricted" asks of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """What the Pod Security Standard "restricted" asks of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def container_resources(resources: Resources) -> Object:
    """GPUs and memory are requested and limited alike; CPU is only requested, as a limit on it
    would only slow the pod down while cores are idle."""
    requests: Object = {}
    limits: Object = {}
    if resources.cpu:
        requests["cpu"] = resources.cpu
    if resources.memory:
        requests["memory"] = limits["memory"] = resources.memory
    if resources.gpus:
        requests[GPU] = limits[GPU] = str(resources.gpus)
    return {"requests": requests, "limits": limits}


def key_from(variable: str, secrets: list[SecretReference | None]) -> list[Object]:
    """An environment variable from the key of that name of the first Secret that is named."""
    named = next((each for each in secrets if each), None)
    if named is None:
        return []
    source = {"secretKeyRef": {"name": named.name, "key": variable}}
    return [{"name": variable, "valueFrom": source}]


def pod(
    template: PodTemplate,
    labels: dict[str, str],
    container: Object,
    volumes: list[Object],
    pull_secrets: Sequence[str] = (),
    **spec: Any,
) -> Object:
    """A pod template with one main container, which gets /tmp and a scratch folder to write to."""
    environment = {each["name"]: each for each in container.get("env", [])}
    environment |= {each.name: {"name": each.name, "value": each.value} for each in template.env}
    writable: list[Object] = [{"name": name, "emptyDir": {}} for name in ("tmp", "scratch")]
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "scratch", "mountPath": SCRATCH_FOLDER},
    ]
    main = {
        **container,
        "name": MAIN_CONTAINER,
        "image": template.image or container["image"],
        "env": list(environment.values()),
        "securityContext": container_security(),
        "volumeMounts": [*container.get("volumeMounts", []), *mounts],
    }
    return {
        "metadata": {
            "labels": {**template.labels, **labels},
            **({"annotations": template.annotations} if template.annotations else {}),
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "containers": [main],
            "volumes": [*volumes, *writable],
            **_overlay(template, pull_secrets),
            **spec,
        },
    }


def _overlay(template: PodTemplate, pull_secrets: Sequence[str]) -> Object:
    secrets = dict.fromkeys([*pull_secrets, *(each.name for each in template.image_pull_secrets)])
    overlay: Object = {
        "nodeSelector": template.node_selector,
        "tolerations": [each.to_json() for each in template.tolerations],
        "imagePullSecrets": [{"name": each} for each in secrets],
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "serviceAccountName": template.service_account_name,
    }
    return {key: value for key, value in overlay.items() if value}
