"""``logs``: of the pod that does an object's work now. Choosing it is pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from enum import StrEnum

from tunesmith.api.objects import Kind
from tunesmith.commandline.connection import Connection, Object
from tunesmith.commandline.outcome import Refusal
from tunesmith.finetunejob.decision import JobStage
from tunesmith.kube.labels import OWNER_LABELS, STAGE
from tunesmith.kube.pods import phase

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
POLL_SECONDS = 1.0


class Stage(StrEnum):
    """Whose pods: by the stage labels of Jobs, and those of EvalRuns."""

    PREPARE = JobStage.PREPARE
    TRAIN = JobStage.TRAIN
    EVALUATE = "evaluate"


def stage_of(pod: Object) -> Stage:
    return Stage(pod["metadata"].get("labels", {}).get(STAGE, Stage.EVALUATE))


def current_pod(pods: Iterable[Object], stage: Stage | None = None) -> Object | None:
    """The newest pod, as stages follow each other; of several that work together the first, which
    speaks for all."""
    chosen = [each for each in pods if stage is None or stage_of(each) is stage]
    newest = max(chosen, key=_made, default=None)
    if newest is None:
        return None
    together = [each for each in chosen if _job_of(each) == _job_of(newest)]
    return max(together, key=lambda pod: (-_rank(pod), _made(pod)))


def _rank(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get(COMPLETION_INDEX, 0))


def _job_of(pod: Object) -> str:
    metadata = pod["metadata"]
    return str(metadata.get("labels", {}).get(JOB_NAME, metadata["name"]))


def _made(pod: Object) -> str:
    return str(pod["metadata"]["creationTimestamp"])


def pods_of(connection: Connection, raw: Object) -> list[Object]:
    """All pods that work for an object: of a FineTuneJob also those of its EvalRuns."""
    kind, name = Kind(raw["kind"]), raw["metadata"]["name"]
    owned = {OWNER_LABELS[kind]: name}
    pods = connection.list("Pod", owned)
    if kind is Kind.FINE_TUNE_JOB:
        for run in connection.list("EvalRun", owned):
            pods += connection.list("Pod", {OWNER_LABELS[Kind.EVAL_RUN]: run["metadata"]["name"]})
    return pods


def printed(
    connection: Connection, raw: Object, stage: Stage | None, tail: int | None, *, follow: bool
) -> tuple[str, Iterator[bytes]]:
    """The pod's name and what it prints. Raises Refusal where there is no pod."""
    pod = current_pod(pods_of(connection, raw), stage)
    if pod is None:
        state = raw.get("status", {}).get("state", "new")
        which = f" of the stage {stage}" if stage else ""
        raise Refusal(f"{raw['metadata']['name']} is {state} and has no pod{which}")
    name = pod["metadata"]["name"]
    while follow and phase(pod) == "Pending":
        time.sleep(POLL_SECONDS)
        pod = connection.get("Pod", name)
    return name, connection.logs(name, follow=follow, tail=tail)
