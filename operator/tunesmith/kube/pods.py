"""Readings of a pod's status: what keeps it from running, and how it ended. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunesmith.api.reasons import ConditionReason
from tunesmith.kube.conditions import raw_condition

MAIN_CONTAINER = "main"

Pod = dict[str, Any]


@dataclass(frozen=True)
class Trouble:
    """Something outside the operator that keeps a pod from running; it heals when it is mended."""

    reason: str
    message: str


@dataclass(frozen=True)
class Ending:
    """How the main container ended."""

    exit_code: int
    reason: str
    message: str
    started_at: str
    finished_at: str


@dataclass(frozen=True)
class Leaving:
    """A pod that was told to end. It is gone once its kubelet, or the deletion of its Node, says
    so: until then its Job makes no other."""

    pod: str
    node: str
    #: When its time to end is over, and not when it was told to.
    due: str


def phase(pod: Pod) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_ready(pod: Pod) -> bool:
    return raw_condition(pod, "Ready").get("status") == "True" and not is_leaving(pod)


def is_leaving(pod: Pod) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def leaving(pod: Pod) -> Leaving | None:
    """A pod of a node that was told to end, and has not; None of any other."""
    node = pod.get("spec", {}).get("nodeName")
    if not node or not is_leaving(pod) or ending(pod):
        return None
    metadata = pod["metadata"]
    return Leaving(metadata["name"], node, metadata["deletionTimestamp"])


def is_disrupted(pod: Pod) -> bool:
    """Whether the cluster took it away: a drain, a lost node, a pod of higher priority."""
    return raw_condition(pod, "DisruptionTarget").get("status") == "True"


def address(pod: Pod) -> str | None:
    """The pod's IP address, once it has one."""
    found = pod.get("status", {}).get("podIP")
    return str(found) if found else None


def ending(pod: Pod) -> Ending | None:
    """How the main container ended, or None while it has not."""
    terminated = _main_container(pod).get("state", {}).get("terminated")
    if not terminated:
        return None
    finished_at = terminated.get("finishedAt") or pod["metadata"]["creationTimestamp"]
    return Ending(
        exit_code=int(terminated.get("exitCode", -1)),
        reason=str(terminated.get("reason", "")),
        message=str(terminated.get("message", "")),
        started_at=str(terminated.get("startedAt") or finished_at),
        finished_at=str(finished_at),
    )


def running_since(pod: Pod) -> str | None:
    """When the main container was started, while it runs."""
    started = _main_container(pod).get("state", {}).get("running", {}).get("startedAt")
    return str(started) if started else None


def trouble(pod: Pod) -> Trouble | None:
    """What keeps this pod from running, with a remedy; None when nothing is known to."""
    namespace = pod["metadata"]["namespace"]
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        if found := _container_trouble(waiting, _image(pod, container["name"]), namespace):
            return found
    scheduled = raw_condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _scheduling_trouble(scheduled.get("message", ""), namespace)
    return None


def _container_trouble(waiting: dict[str, str], image: str, namespace: str) -> Trouble | None:
    message = waiting.get("message", "")
    match waiting.get("reason", ""):
        case "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull":
            return Trouble(
                ConditionReason.IMAGE_NOT_PULLABLE,
                f"The image {image} cannot be pulled. Check its name and tag, that the node can "
                "reach the registry, and podTemplate.imagePullSecrets. It is retried by itself.",
            )
        case "CreateContainerConfigError":
            return _configuration_trouble(message, namespace)
        case "RunContainerError" | "CreateContainerError":
            return Trouble(
                ConditionReason.CONTAINER_NOT_CREATABLE, f"A container cannot be started: {message}"
            )
        case "CrashLoopBackOff":
            return Trouble(
                ConditionReason.CRASHING,
                "The container ends right after its start and is restarted with growing pauses. "
                "`kubectl logs` of the pod says why.",
            )
        case _:
            return None


def _configuration_trouble(message: str, namespace: str) -> Trouble:
    if found := re.search(r'secret "([^"]+)" not found', message):
        return Trouble(
            ConditionReason.SECRET_NOT_FOUND,
            f"The Secret {found.group(1)} does not exist in namespace {namespace}. Create it with "
            "the keys that the uri beside its secretRef needs; the pod starts by itself then.",
        )
    if found := re.search(r"couldn't find key (\S+) in Secret ([^/]+)/(\S+)", message):
        return Trouble(
            ConditionReason.SECRET_KEY_NOT_FOUND,
            f"The Secret {found.group(3)} in namespace {namespace} has no key {found.group(1)}. "
            "Add it; the pod starts by itself then.",
        )
    return Trouble(
        ConditionReason.CONTAINER_NOT_CREATABLE, f"The container cannot be created: {message}"
    )


def _scheduling_trouble(message: str, namespace: str) -> Trouble | None:
    if found := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return Trouble(
            ConditionReason.CLAIM_NOT_FOUND,
            f"The PersistentVolumeClaim {found.group(1)} does not exist in namespace {namespace}. "
            "Create it; the pod starts by itself then.",
        )
    if "unbound immediate PersistentVolumeClaims" in message:
        return Trouble(
            ConditionReason.CLAIM_NOT_BOUND,
            "A PersistentVolumeClaim that the pod uses has no volume yet. `kubectl describe pvc` "
            "says what its StorageClass waits for.",
        )
    if "nodes are available" in message:
        return Trouble(
            ConditionReason.UNSCHEDULABLE,
            f"No node can take the pod: {message} Lower resources, change podTemplate's "
            "nodeSelector or tolerations, or wait for a node.",
        )
    return None


def _containers(pod: Pod) -> list[dict[str, Any]]:
    """The states of all containers, in the order in which they start."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _main_container(pod: Pod) -> dict[str, Any]:
    return next((each for each in _containers(pod) if each["name"] == MAIN_CONTAINER), {})


def _image(pod: Pod, name: str) -> str:
    spec = pod.get("spec", {})
    containers = [*spec.get("initContainers", []), *spec.get("containers", [])]
    return next((str(each["image"]) for each in containers if each["name"] == name), "")
