"""Where operator and trainer meet: the plan in, progress, the termination message, exit codes.

The trainer never talks to the Kubernetes API. It reads one plan (PLAN_PATH), offers its progress
over HTTP (PROGRESS_PATH), writes a folder, and says how it ended in one JSON line
(TERMINATION_PATH, at most 4096 bytes, the kubelet's limit) and by its exit code.
"""

from __future__ import annotations

import hashlib
import json
from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tunesmith.api.evalrun import EvaluationProgress, Suite, SuiteResult
from tunesmith.api.finetunejob import (
    Artifact,
    DatasetReceipt,
    HeldOut,
    Lora,
    Method,
    Progress,
    Training,
)
from tunesmith.api.objects import DatasetFormat, FailureClass
from tunesmith.api.schema import ApiModel

CONTRACT_VERSION = 1

PLAN_PATH = "/etc/tunesmith/plan.json"
TERMINATION_PATH = "/dev/termination-log"
TERMINATION_LIMIT_BYTES = 4096
PROGRESS_PORT = 9400
PROGRESS_PATH = "/progress"
METRICS_PATH = "/metrics"

#: The held-out examples, in the folder of the artifact.
HELD_OUT_FILE = "heldout.jsonl"

#: Mount points in the trainer's pod. Claims appear as CLAIMS_FOLDER/<claim>.
CLAIMS_FOLDER = "/mnt/claims"
CONFIG_MAPS_FOLDER = "/mnt/configmaps"
SCRATCH_FOLDER = "/scratch"
#: Environment variable that carries a hub token from a Secret.
HUB_TOKEN_VARIABLE = "HF_TOKEN"


class ExitCode(IntEnum):
    """Whose fault the end was. 1 is Python's own code for an uncaught exception."""

    SUCCEEDED = 0
    INTERNAL = 1
    USER_ERROR = 10
    DATA_UNREACHABLE = 11
    OUT_OF_MEMORY = 12
    PREEMPTED = 13


FAILURE_CLASSES: dict[int, FailureClass] = {
    ExitCode.INTERNAL: FailureClass.INTERNAL,
    ExitCode.USER_ERROR: FailureClass.USER_ERROR,
    ExitCode.DATA_UNREACHABLE: FailureClass.DATA_UNREACHABLE,
    ExitCode.OUT_OF_MEMORY: FailureClass.OUT_OF_MEMORY,
    ExitCode.PREEMPTED: FailureClass.PREEMPTED,
}


class Reason(StrEnum):
    """What the trainer names as the cause; the words appear as reasons of conditions."""

    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_UNUSABLE = "ModelUnusable"
    BASE_MODEL_CHANGED = "BaseModelChanged"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_EMPTY = "DatasetEmpty"
    DATASET_TOO_SMALL = "DatasetTooSmall"
    DATASET_MALFORMED = "DatasetMalformed"
    DATASET_CHANGED = "DatasetChanged"
    EXAMPLES_TOO_LONG = "ExamplesTooLong"
    CHAT_TEMPLATE_MISSING = "ChatTemplateMissing"
    TARGET_MODULES_NOT_FOUND = "TargetModulesNotFound"
    ADAPTER_NOT_FOUND = "AdapterNotFound"
    ADAPTER_CHANGED = "AdapterChanged"
    ADAPTER_NOT_APPLIED = "AdapterNotApplied"
    MERGE_NOT_EQUAL = "MergeNotEqual"
    OUTPUT_NOT_WRITABLE = "OutputNotWritable"
    HUB_UNREACHABLE = "HubUnreachable"
    OUT_OF_MEMORY = "OutOfMemory"
    LOSS_NOT_FINITE = "LossNotFinite"
    PREEMPTED = "Preempted"
    INTERNAL = "InternalError"


class PlannedSource(ApiModel):
    """A source as the pod sees it. ``path`` is unset for hub repositories."""

    uri: str
    path: str | None = None


class PlannedDataset(PlannedSource):
    format: DatasetFormat = DatasetFormat.AUTO
    digest: str | None = None


class TrainingPlan(ApiModel):
    """Everything the trainer needs to know. Its digest identifies the result."""

    kind: Literal["Training"] = "Training"
    version: int = CONTRACT_VERSION
    #: namespace/name of the FineTuneJob, for lineage and log lines.
    owner: str
    base_model: PlannedSource
    dataset: PlannedDataset
    held_out: HeldOut
    method: Method
    lora: Lora
    training: Training
    #: Folder of this job below the output; the artifact gets a folder of its own in it.
    output: PlannedSource
    image: str


class PlannedSuite(ApiModel):
    """A suite with its dataset resolved."""

    suite: Suite
    dataset: PlannedDataset


class EvaluationPlan(ApiModel):
    """Everything the evaluator needs to know."""

    kind: Literal["Evaluation"] = "Evaluation"
    version: int = CONTRACT_VERSION
    owner: str
    base_model: PlannedSource
    adapter: PlannedSource
    adapter_digest: str
    suites: list[PlannedSuite]
    #: Folder for the answers, item by item; unset when nobody asked for them.
    output: PlannedSource | None = None


class MergePlan(ApiModel):
    """Everything that is needed to write base model and adapter as one model."""

    kind: Literal["Merge"] = "Merge"
    version: int = CONTRACT_VERSION
    owner: str
    base_model: PlannedSource
    #: What the base model must be; unset to take the one that is there.
    base_model_digest: str | None = None
    adapter: PlannedSource
    adapter_digest: str
    #: The folder of the merged model itself.
    output: PlannedSource


class RemovalPlan(ApiModel):
    """Delete the folder of an adapter that nobody serves any more."""

    kind: Literal["Removal"] = "Removal"
    version: int = CONTRACT_VERSION
    owner: str
    adapter: PlannedSource
    #: A folder that holds another adapter is left alone.
    adapter_digest: str


AnyPlan = TrainingPlan | EvaluationPlan | MergePlan | RemovalPlan
Plan = Annotated[AnyPlan, Field(discriminator="kind")]
PLAN_READER: TypeAdapter[AnyPlan] = TypeAdapter(Plan)


def plan_digest(plan: AnyPlan) -> str:
    """sha256 of the plan in canonical JSON: equal plans, equal digests."""
    canonical = json.dumps(plan.to_json(), sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


class ProgressReport(ApiModel):
    """What the progress endpoint answers."""

    training: Progress | None = None
    evaluation: EvaluationProgress | None = None
    dataset: DatasetReceipt | None = None


class TrainingOutcome(ApiModel):
    """What a successful training leaves."""

    artifact: Artifact
    dataset: DatasetReceipt
    progress: Progress


class EvaluationOutcome(ApiModel):
    """What a successful evaluation measured. The operator draws the verdict from it."""

    adapter_digest: str
    base_model_digest: str
    results: list[SuiteResult]


class MergeOutcome(ApiModel):
    """What a successful merge leaves."""

    uri: str
    adapter_digest: str
    base_model_digest: str
    #: sha256 over the merged model's configuration and weights.
    digest: str
    #: Largest difference in log-probability between the merged model and base with adapter, and
    #: what was allowed.
    largest_difference: float
    tolerance: float


class RemovalOutcome(ApiModel):
    """What a removal leaves: nothing."""

    uri: str


class ReportedFailure(ApiModel):
    """Why the trainer gave up, in a sentence for its user."""

    failure_class: FailureClass
    reason: Reason
    message: str


class TerminationMessage(ApiModel):
    """The last word of the trainer. Exactly one member is set."""

    version: int = CONTRACT_VERSION
    training: TrainingOutcome | None = None
    evaluation: EvaluationOutcome | None = None
    merge: MergeOutcome | None = None
    removal: RemovalOutcome | None = None
    failure: ReportedFailure | None = None

    def to_line(self) -> str:
        """One JSON line of at most TERMINATION_LIMIT_BYTES; a long failure message is cut."""
        line = json.dumps(self.to_json(), separators=(",", ":"))
        excess = len(line.encode()) - TERMINATION_LIMIT_BYTES
        if excess <= 0 or self.failure is None:
            return line
        shorter = self.failure.message[: max(0, len(self.failure.message) - excess - 64)] + "…"
        cut = self.failure.model_copy(update={"message": shorter})
        return self.model_copy(update={"failure": cut}).to_line()
