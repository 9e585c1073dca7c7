"""The batch Job that runs the trainer image for one attempt, and the plan it reads. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tunesmith.api.objects import Kind, ObjectMeta, PodTemplate, Resources
from tunesmith.api.trainer_contract import PLAN_PATH, PROGRESS_PORT, SCRATCH_FOLDER, AnyPlan
from tunesmith.kube.attempts import Start
from tunesmith.kube.labels import ATTEMPT, COUNTED_FAILURES, child_metadata
from tunesmith.kube.pod_spec import container_resources, pod
from tunesmith.kube.sources import Source
from tunesmith.kube.volumes import volumes

Object = dict[str, Any]

#: Time for the trainer to stop and say so after SIGTERM.
GRACE_SECONDS = 60


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
    image: str
    image_pull_policy: str
    active_deadline_seconds: int | None = None
    #: Environment variables besides those of the sources.
    environment: list[Object] = field(default_factory=list)
    #: On the Job and its plan.
    annotations: dict[str, str] = field(default_factory=dict)

    def objects(self) -> list[Object]:
        """The plan first, so that the pod never waits for it."""
        return [self._plan_config_map(), self._job()]

    def _metadata(self) -> Object:
        metadata = child_metadata(self.kind, self.owner, self.name)
        metadata["labels"][ATTEMPT] = str(self.start.number)
        metadata["annotations"] = {
            COUNTED_FAILURES: str(self.start.counted_failures),
            **self.annotations,
        }
        return metadata

    def _plan_config_map(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self._metadata(),
            "immutable": True,
            "data": {PurePosixPath(PLAN_PATH).name: json.dumps(self.plan.to_json(), indent=1)},
        }

    def _job(self) -> Object:
        deadline = self.active_deadline_seconds
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self._metadata(),
            "spec": {
                # Attempts are ours to count: they see why one failed, the Job controller does not.
                "backoffLimit": 0,
                # A pod that the cluster took away (drain, preemption) is no failed attempt.
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "Ignore",
                            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                        }
                    ]
                },
                "podReplacementPolicy": "Failed",
                **({"activeDeadlineSeconds": deadline} if deadline else {}),
                "template": self._pod(),
            },
        }

    def _pod(self) -> Object:
        found, mounted = volumes([each.mount() for each in self.sources])
        credentials = [variable for each in self.sources for variable in each.variables()]
        plan_volume = {"name": "plan", "configMap": {"name": self.name}}
        plan_mount = {
            "name": "plan",
            "mountPath": str(PurePosixPath(PLAN_PATH).parent),
            "readOnly": True,
        }
        container = {
            "image": self.image,
            "imagePullPolicy": self.image_pull_policy,
            "command": ["python3", "-m", "tunesmith_trainer"],
            "env": [
                {"name": "HOME", "value": SCRATCH_FOLDER},
                {"name": "PYTHONUNBUFFERED", "value": "1"},
                *credentials,
                *self.environment,
            ],
            "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}],
            "resources": container_resources(self.resources),
            "volumeMounts": [plan_mount, *mounted],
        }
        return pod(
            self.template,
            {
                **child_metadata(self.kind, self.owner, "")["labels"],
                ATTEMPT: str(self.start.number),
            },
            container,
            [plan_volume, *found],
            restartPolicy="Never",
            terminationGracePeriodSeconds=GRACE_SECONDS,
        )
