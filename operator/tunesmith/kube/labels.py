"""Labels, annotations and owner references of what we create."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.api import API_VERSION, GROUP
from tunesmith.api.objects import Kind, ObjectMeta

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "tunesmith"

#: On children that are kept as described: a digest of the description.
APPLIED = f"{GROUP}/applied"
ATTEMPT = f"{GROUP}/attempt"
COUNTED_FAILURES = f"{GROUP}/counted-failures"
#: What the training of this attempt changes in its spec, as JSON.
ADJUSTMENTS = f"{GROUP}/adjustments"
#: How the training of this attempt fits into memory, as JSON.
MEMORY_PLAN = f"{GROUP}/memory-plan"
#: On the pods of trainer Jobs: what they are to do, as JSON. The kubelet brings it into a file.
PLAN = f"{GROUP}/plan"
#: Where the adapter goes, as a policy said when the work began; as JSON.
OUTPUT = f"{GROUP}/output"
#: GPU-seconds that an attempt had used when it was suspended: its Job forgets its start then.
GPU_SECONDS = f"{GROUP}/gpu-seconds"
#: On a Job that we suspended, and nobody else: "true", and "false" once we let it go on.
STOPPED = f"{GROUP}/stopped"
#: Which part of its owner's work a Job does.
STAGE = f"{GROUP}/stage"

#: Kueue's own labels: they choose the queue in which a Job waits.
QUEUE_NAME = "kueue.x-k8s.io/queue-name"
QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"

#: Label that names the owner of a child, by the owner's kind.
OWNER_LABELS = {
    Kind.FINE_TUNE_JOB: f"{GROUP}/finetunejob",
    Kind.EVAL_RUN: f"{GROUP}/evalrun",
    Kind.ADAPTER_DEPLOYMENT: f"{GROUP}/adapterdeployment",
}


def owner_labels(kind: Kind, name: str) -> dict[str, str]:
    """Labels by which the children of one object are found."""
    return {MANAGED_BY: MANAGER, OWNER_LABELS[kind]: name}


def child_metadata(kind: Kind, owner: ObjectMeta, name: str) -> dict[str, Any]:
    """Metadata of a child: found by label, deleted with its owner."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": owner_labels(kind, owner.name),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": str(kind),
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
            }
        ],
    }


def queue_labels(owner: ObjectMeta) -> dict[str, str]:
    """The labels by which Kueue queues a Job, as the owner has them; empty without a queue."""
    if QUEUE_NAME not in owner.labels:
        return {}
    return {key: owner.labels[key] for key in (QUEUE_NAME, QUEUE_PRIORITY) if key in owner.labels}


def noted(child: dict[str, Any], annotation: str) -> Any:
    """What we once noted on a child, as JSON; None without it, and where a hand has spoilt it."""
    try:
        return json.loads(child["metadata"].get("annotations", {}).get(annotation, "null"))
    except ValueError:
        return None


def noted_number(child: dict[str, Any], annotation: str) -> int:
    """The same of a number; 0 where there is none."""
    found = noted(child, annotation)
    return found if isinstance(found, int) else 0


def is_controlled_by(child: dict[str, Any], owner: ObjectMeta) -> bool:
    references = child["metadata"].get("ownerReferences", [])
    return any(each["uid"] == owner.uid and each.get("controller") for each in references)
