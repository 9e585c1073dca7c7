"""The batch Job that runs the trainer image for one attempt. Pure.

The plan that the trainer reads is an annotation of the Job's pods: what a pod is to do cannot be
lost, changed or left behind without it, and one write makes both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind, ObjectMeta, PodTemplate, Resources, SecretReference
from tunesmith.api.trainer_contract import (
    HUB_FOLDER,
    PLAN_PATH,
    PROGRESS_PORT,
    SCRATCH_FOLDER,
    AnyPlan,
)
from tunesmith.kube.attempts import Start
from tunesmith.kube.hub import hub_mounts, hub_variables, hub_volumes
from tunesmith.kube.labels import ATTEMPT, COUNTED_FAILURES, PLAN, child_metadata
from tunesmith.kube.network import Destination, destinations, reach_labels
from tunesmith.kube.pod_spec import container_resources, pod
from tunesmith.kube.sources import Source
from tunesmith.kube.volumes import volumes
from tunesmith.settings import Settings

Object = dict[str, Any]

#: Time for the trainer to stop and say so after SIGTERM.
GRACE_SECONDS = 60
#: Where the first of several pods waits for the others; torchrun's own default.
RENDEZVOUS_PORT = 29400


def rendezvous(job_name: str) -> str:
    """host:port of the first of several pods; its Service is called as the Job."""
    return f"{job_name}-0.{job_name}:{RENDEZVOUS_PORT}"


@dataclass(frozen=True)
class TrainerJob:
    """Everything that differs between one trainer Job and another."""

    kind: Kind
    owner: ObjectMeta
    name: str
    start: Start
    plan: AnyPlan
    #: Everything that the pod reads or writes.
    sources: list[Source]
    resources: Resources
    template: PodTemplate
    settings: Settings
    active_deadline_seconds: int | None = None
    #: Where it goes over the network besides the sources.
    also_reaches: frozenset[Destination] = frozenset()
    #: Environment variables besides those of the sources.
    environment: list[Object] = field(default_factory=list)
    #: On the Job.
    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    #: On the Job alone: the queue in which it waits, suspended, until it is admitted.
    queue: dict[str, str] = field(default_factory=dict)
    #: Pods that work together as one attempt.
    nodes: int = 1
    #: Secrets all of whose keys become environment variables.
    whole_secrets: list[SecretReference] = field(default_factory=list)
    grace_seconds: int = GRACE_SECONDS

    def objects(self) -> list[Object]:
        """The Service first, so that no pod waits for it."""
        group = [self._service()] if self.nodes > 1 else []
        return [*group, self._job()]

    def _pod_annotations(self) -> dict[str, str]:
        return {**self.template.annotations, PLAN: json.dumps(self.plan.to_json())}

    def _metadata(self) -> Object:
        metadata = child_metadata(self.kind, self.owner, self.name)
        metadata["labels"] |= {ATTEMPT: str(self.start.number), **self.labels}
        metadata["annotations"] = {
            COUNTED_FAILURES: str(self.start.counted_failures),
            **self.annotations,
        }
        return metadata

    def _service(self) -> Object:
        """Gives the pods names by which they find each other, before they are ready."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._metadata(),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"batch.kubernetes.io/job-name": self.name},
                "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
            },
        }

    def _job(self) -> Object:
        metadata, deadline = self._metadata(), self.active_deadline_seconds
        metadata["labels"] |= self.queue
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                # Attempts are ours to count: they see why one failed, the Job controller does not.
                "backoffLimit": 0,
                "podFailurePolicy": {"rules": [self._when_disrupted()]},
                "podReplacementPolicy": "Failed",
                **({"activeDeadlineSeconds": deadline} if deadline else {}),
                **({"suspend": True} if self.queue else {}),
                **(self._group() if self.nodes > 1 else {}),
                "template": self._pod(),
            },
        }

    def _when_disrupted(self) -> Object:
        """A pod that the cluster took away (drain, preemption) is no failed attempt.

        It is replaced, unless it was one of several: the others cannot go on without it, and all
        of them begin again together.
        """
        return {
            "action": "FailJob" if self.nodes > 1 else "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }

    def _group(self) -> Object:
        nodes = self.nodes
        return {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}

    def _reaches(self) -> set[Destination]:
        schemes: set[Scheme] = {parse_location(each.uri).scheme for each in self.sources}
        return destinations(schemes) | self.also_reaches

    def _pod(self) -> Object:
        found, mounted = volumes([each.mount() for each in self.sources])
        hub, reached = self.settings.hub, self._reaches()
        on_hub = Destination.HUB in reached
        if on_hub:
            found += hub_volumes(hub)
            mounted += hub_mounts(hub, HUB_FOLDER)
        credentials = [variable for each in self.sources for variable in each.variables()]
        plan = PurePosixPath(PLAN_PATH)
        told = {"path": plan.name, "fieldRef": {"fieldPath": f"metadata.annotations['{PLAN}']"}}
        plan_volume = {"name": "plan", "downwardAPI": {"items": [told]}}
        plan_mount = {"name": "plan", "mountPath": str(plan.parent), "readOnly": True}
        if self.nodes > 1 or self.resources.gpus > 1:
            # NCCL moves tensors between processes through it; the default are 64 MiB.
            found.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
            mounted.append({"name": "shared-memory", "mountPath": "/dev/shm"})
        container = {
            "image": self.settings.trainer_image,
            "imagePullPolicy": self.settings.image_pull_policy,
            "command": ["python3", "-m", "tunesmith_trainer"],
            "env": [
                {"name": "HOME", "value": SCRATCH_FOLDER},
                {"name": "PYTHONUNBUFFERED", "value": "1"},
                *(hub_variables(hub, HUB_FOLDER) if on_hub else []),
                *credentials,
                *self.environment,
            ],
            "envFrom": [{"secretRef": {"name": each.name}} for each in self.whole_secrets],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}],
            "resources": container_resources(self.resources),
            "volumeMounts": [plan_mount, *mounted],
        }
        return pod(
            self.template.model_copy(update={"annotations": self._pod_annotations()}),
            {
                **child_metadata(self.kind, self.owner, "")["labels"],
                ATTEMPT: str(self.start.number),
                **reach_labels(reached - {Destination.HUB} if hub.cache else reached),
                **self.labels,
            },
            container,
            [plan_volume, *found],
            self.settings.pull_secrets,
            restartPolicy="Never",
            terminationGracePeriodSeconds=self.grace_seconds,
            **({"subdomain": self.name} if self.nodes > 1 else {}),
        )
