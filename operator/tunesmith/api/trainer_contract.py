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

from tunesmith.api.dataset import DatasetReceipt, NearDuplicates
from tunesmith.api.evalrun import EvaluationProgress, Report, SuiteResult
from tunesmith.api.evaluation_suite import Gate, QuestionFormat, Suite
from tunesmith.api.finetunejob import ReportTo
from tunesmith.api.job_status import Artifact, Progress
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.method import Lora, Method
from tunesmith.api.objects import DatasetFormat, FailureClass, HeldOut
from tunesmith.api.schema import ApiModel
from tunesmith.api.training import Backend, Training

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
#: Where the hub's library finds the cache that the platform team filled, if there is one.
HUB_FOLDER = "/mnt/hub"
#: Environment variable that carries a hub token from a Secret.
HUB_TOKEN_VARIABLE = "HF_TOKEN"
#: Environment variable that carries the key of a judge from a Secret.
JUDGE_KEY_VARIABLE = "JUDGE_API_KEY"
#: Examples of the training side, in the folder of the artifact: to choose a prompt on.
PROMPT_EXAMPLES_FILE = "prompt-examples.jsonl"

#: What else a preparation leaves in its folder, ``<output>/prepared/<digest>/``.
PREPARED_FOLDER = "prepared"
TRAIN_FILE = "train.jsonl"
RECEIPT_FILE = "receipt.json"
REVIEW_FILE = "review.html"
#: The training's report, in the folder of the artifact.
REPORT_FILE = "report.html"
#: Checkpoints of attempts at one result, ``<output>/checkpoints/<digest>/``.
CHECKPOINTS_FOLDER = "checkpoints"


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
    NOTHING_TO_LEARN = "NothingToLearn"
    DOES_NOT_FIT = "DoesNotFit"
    PREPARED_DATA_CHANGED = "PreparedDataChanged"
    BACKEND_MISSING = "BackendMissing"
    CHAT_TEMPLATE_MISSING = "ChatTemplateMissing"
    TARGET_MODULES_NOT_FOUND = "TargetModulesNotFound"
    ADAPTER_NOT_FOUND = "AdapterNotFound"
    ADAPTER_CHANGED = "AdapterChanged"
    ADAPTER_NOT_APPLIED = "AdapterNotApplied"
    BENCHMARK_UNKNOWN = "BenchmarkUnknown"
    BENCHMARK_DATA_MISSING = "BenchmarkDataMissing"
    JUDGE_UNREACHABLE = "JudgeUnreachable"
    MERGE_NOT_EQUAL = "MergeNotEqual"
    OUTPUT_NOT_WRITABLE = "OutputNotWritable"
    HUB_UNREACHABLE = "HubUnreachable"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    SCRATCH_FULL = "ScratchFull"
    OUT_OF_MEMORY = "OutOfMemory"
    LOSS_NOT_FINITE = "LossNotFinite"
    STEP_WITHOUT_ANSWERS = "StepWithoutAnswers"
    PREEMPTED = "Preempted"
    INTERNAL = "InternalError"


class PlannedSource(ApiModel):
    """A source as the pod sees it. ``path`` is unset for what has to be fetched."""

    uri: str
    path: str | None = None
    #: What the names of the environment variables with its credentials begin with.
    credentials: str | None = None
    #: What its bytes must be: of a file or an archive, or of a model's configuration and weights.
    content_digest: str | None = None


class PlannedDataset(PlannedSource):
    format: DatasetFormat = DatasetFormat.AUTO
    digest: str | None = None


class PlannedRegistry(ApiModel):
    """An OCI registry that gets the artifact, too."""

    reference: str
    credentials: str | None = None
    insecure: bool = False


class Hardware(ApiModel):
    """What training will run on."""

    gpus: int = 0
    nodes: int = 1
    #: Of one GPU; unset without GPUs, or when nobody knows.
    gpu_memory_bytes: int | None = None
    #: Of one training pod, where it has a limit.
    memory_bytes: int | None = None

    @property
    def processes(self) -> int:
        """One for each GPU, and one for each pod without GPUs."""
        return max(1, self.gpus) * self.nodes


class PreparationPlan(ApiModel):
    """Everything that is needed to make the data ready, and to plan the memory. No GPU."""

    kind: Literal["Preparation"] = "Preparation"
    version: int = CONTRACT_VERSION
    owner: str
    base_model: PlannedSource
    dataset: PlannedDataset
    held_out: HeldOut
    near_duplicates: NearDuplicates
    #: Files of examples that training must share no text with.
    decontaminate_against: list[PlannedDataset] = Field(default_factory=list)
    max_lost_tokens: float
    review_examples: int
    method: Method
    lora: Lora
    training: Training
    hardware: Hardware
    #: Folder of this job below the output; what is prepared gets a folder of its own in it.
    output: PlannedSource


class TrainingPlan(ApiModel):
    """Everything the trainer needs to know. Its digest identifies the result."""

    kind: Literal["Training"] = "Training"
    version: int = CONTRACT_VERSION
    #: namespace/name of the FineTuneJob, for lineage and log lines.
    owner: str
    base_model: PlannedSource
    #: The folder that the preparation made, and what it must hold.
    prepared: PlannedSource
    dataset_uri: str
    dataset: DatasetReceipt
    #: Seed with which the rows for choosing a prompt were drawn.
    held_out: HeldOut
    lora: Lora
    training: Training
    #: How the work is cut to fit into memory. Its method is never Auto.
    memory: MemoryPlan
    backend: Backend = Backend.TUNESMITH
    report_to: list[ReportTo] = Field(default_factory=list)
    #: Folder of this job below the output; the artifact gets a folder of its own in it.
    output: PlannedSource
    oci: PlannedRegistry | None = None
    image: str
    #: Pods that work together; the first is found under ``rendezvous``.
    nodes: int = 1
    processes_per_node: int = 1
    #: host:port of the first pod; unset with one pod.
    rendezvous: str | None = None


class PlannedQuestions(PlannedSource):
    """Rows that are asked, or that a prompt is chosen on."""

    format: QuestionFormat = QuestionFormat.AUTO
    digest: str | None = None
    held_out: HeldOut | None = None


class PlannedSuite(ApiModel):
    """A suite with its files resolved, and what the gates on it want."""

    suite: Suite
    #: Of a dataset, or of MT-Bench.
    questions: PlannedQuestions | None = None
    #: To choose the base model's prompt on; unset to take what held_out leaves of the questions.
    prompt_examples: PlannedQuestions | None = None
    #: Folder of a benchmark's data; unset for the hub.
    benchmark_data: PlannedSource | None = None
    #: What must hold. A gate may want more items as long as it is in doubt.
    gates: tuple[Gate, ...] = ()


class EvaluationPlan(ApiModel):
    """Everything the evaluator needs to know."""

    kind: Literal["Evaluation"] = "Evaluation"
    version: int = CONTRACT_VERSION
    owner: str
    base_model: PlannedSource
    #: What is compared with the base model; at most one of the two. Neither: only the base model
    #: is measured.
    adapter: PlannedSource | None = None
    merged_model: PlannedSource | None = None
    #: Digest of the adapter or merged model.
    digest: str | None = None
    suites: list[PlannedSuite]
    #: Folder for the report and the answers, item by item; unset when nobody asked for them.
    output: PlannedSource | None = None
    #: Folder of the base model's answers, kept for other runs.
    base_results: PlannedSource | None = None


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


AnyPlan = PreparationPlan | TrainingPlan | EvaluationPlan | MergePlan | RemovalPlan
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


class PreparationOutcome(ApiModel):
    """What a successful preparation leaves."""

    #: The folder of the prepared examples.
    uri: str
    dataset: DatasetReceipt
    memory: MemoryPlan
    #: Commit of the base model's hub repository.
    base_model_revision: str | None = None
    #: What is worth telling about the data, a sentence each.
    warnings: list[str] = Field(default_factory=list)


class TrainingOutcome(ApiModel):
    """What a successful training leaves."""

    artifact: Artifact
    dataset: DatasetReceipt
    progress: Progress


class EvaluationOutcome(ApiModel):
    """What a successful evaluation measured. The operator draws the verdict from it."""

    #: Digest of the adapter or merged model; unset when only the base model was measured.
    digest: str | None = None
    base_model_digest: str
    chat_template_digest: str | None = None
    results: list[SuiteResult]
    report: Report | None = None


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


class Outcome(StrEnum):
    """What a trainer's last word may be about."""

    PREPARATION = "preparation"
    TRAINING = "training"
    EVALUATION = "evaluation"


class TerminationMessage(ApiModel):
    """The last word of the trainer. Exactly one member is set."""

    version: int = CONTRACT_VERSION
    preparation: PreparationOutcome | None = None
    training: TrainingOutcome | None = None
    evaluation: EvaluationOutcome | None = None
    merge: MergeOutcome | None = None
    removal: RemovalOutcome | None = None
    failure: ReportedFailure | None = None

    def tells_of(self, outcome: Outcome) -> bool:
        """Whether it is about this, and no failure."""
        return self.failure is None and getattr(self, outcome) is not None

    def to_line(self) -> str:
        """One JSON line of at most TERMINATION_LIMIT_BYTES; a long failure message is cut."""
        line = json.dumps(self.to_json(), separators=(",", ":"))
        excess = len(line.encode()) - TERMINATION_LIMIT_BYTES
        if excess > 0 and self.evaluation:
            return self._shorter(self.evaluation).to_line()
        if excess <= 0 or self.failure is None:
            return line
        shorter = self.failure.message[: max(0, len(self.failure.message) - excess - 64)] + "…"
        cut = self.failure.model_copy(update={"message": shorter})
        return self.model_copy(update={"failure": cut}).to_line()

    def _shorter(self, evaluation: EvaluationOutcome) -> TerminationMessage:
        """Without what the report has, too: first the subjects, then what was asked in words.

        Raises ValueError if that does not help, which the bounds of the API rule out.
        """
        results = [each.model_copy(update={"fallen": []}) for each in evaluation.results]
        if results == evaluation.results:
            results = [_without_words(each) for each in results]
        if results == evaluation.results:
            raise ValueError("the results of an evaluation do not fit into a termination message")
        shorter = evaluation.model_copy(update={"results": results})
        return self.model_copy(update={"evaluation": shorter})


def _without_words(result: SuiteResult) -> SuiteResult:
    asked = result.asked and result.asked.model_copy(update={"task": None, "judge": None})
    return result.model_copy(update={"asked": asked})
