"""FineTuneJob: a base model, a dataset and a method become an adapter."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from tunesmith.api.dataset import DatasetReceipt, DatasetSource, JobReview
from tunesmith.api.job_evaluation import Adjustment, Evaluation, JobEvaluation, JobPreflight
from tunesmith.api.locations import (
    OCI_PATTERN,
    PVC_FOLDER_PATTERN,
    S3_FOLDER_PATTERN,
    any_of,
)
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.method import METHOD_DESCRIPTION, Lora, Method
from tunesmith.api.objects import (
    NO_PARENT,
    SECRET_RULE,
    SERVED_NAME,
    AttemptStatus,
    Condition,
    Digest,
    ModelSource,
    ObjectMeta,
    PodTemplate,
    Quantity,
    Resources,
    SecretReference,
    Timestamp,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules
from tunesmith.api.training import Backend, ReportKind, Training

#: The longest name whose children's names still fit into a label (63 characters).
MAXIMUM_NAME_LENGTH = 40


class OciTarget(ApiModel):
    """A registry that gets the finished adapter, too."""

    reference: str = Field(
        max_length=512,
        description=(
            "Where the adapter is pushed as an OCI artifact: REGISTRY[:PORT]/REPOSITORY:TAG. "
            "status.artifact.ociDigest names what was pushed."
        ),
        json_schema_extra=rules(
            rule(
                f"self.matches('{OCI_PATTERN}')",
                "output.oci.reference must be REGISTRY[:PORT]/REPOSITORY:TAG, for example "
                "registry.example.com/team/triage:v1",
            )
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret with the keys OCI_USERNAME and OCI_PASSWORD. They are handed to the pod as "
            "environment variables; the operator never reads them."
        ),
    )
    insecure: bool = Field(
        default=False, description="Speak http to the registry: for one inside the cluster."
    )


#: Short enough for what is stored below it, and for the uris of its parts.
OutputUri = Annotated[str, Field(min_length=1, max_length=200)]


class OutputStore(ApiModel):
    """A store for adapters, and what opens it."""

    uri: OutputUri = Field(
        description=(
            "Folder for adapters: pvc://CLAIM[/FOLDER], or s3://BUCKET[/FOLDER] in any "
            "S3-compatible store. The adapter gets a folder of its own below it, named after this "
            "job and the adapter's digest. An AdapterDeployment serves adapters from claims only."
        ),
        json_schema_extra=rules(
            rule(
                any_of(PVC_FOLDER_PATTERN, S3_FOLDER_PATTERN),
                "output.uri must be pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER], for example "
                "pvc://adapters",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret that opens the bucket: keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
            "if needed AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and AWS_REGION."
        ),
    )

    cel_rules = (SECRET_RULE,)


class Output(OutputStore):
    """Where the adapter goes."""

    oci: OciTarget | None = Field(
        default=None, description="A registry that gets the finished adapter, too."
    )


class TrainingResources(Resources):
    """What each training pod asks for, and how many there are."""

    nodes: int = Field(
        default=1,
        description="Training pods that work together, each with so many GPUs.",
        json_schema_extra=between(1, 64, "resources.nodes"),
    )
    gpu_memory: Quantity | None = Field(
        default=None,
        description=(
            "Memory of one GPU, for example 80Gi: what the memory plan is made for. Unset: what "
            "the platform team says its GPUs have."
        ),
    )

    cel_rules = (
        rule(
            "self.gpus > 0 || self.nodes <= 4",
            "resources.nodes may be at most 4 without GPUs: that is for tests",
        ),
    )


class ReportTo(ApiModel):
    """A tool that draws loss curves, besides status and report."""

    kind: ReportKind = Field(description="TensorBoard, MLflow or WandB.")
    uri: Uri | None = Field(
        default=None,
        description=(
            "Address of the server, for MLflow and WandB. TensorBoard's files lie with the "
            "artifact."
        ),
        json_schema_extra=rules(
            rule(
                "self.matches('^https?://[^ ]+$')",
                "reportTo.uri must be an http:// or https:// address",
            )
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description="Secret whose keys (such as WANDB_API_KEY) become environment variables.",
    )

    cel_rules = (
        rule(
            "self.kind == 'TensorBoard' || has(self.uri)",
            "reportTo.uri is needed for MLflow and WandB: the address of your server",
        ),
    )


#: What may be changed while a job exists. All else says how its result was made.
MUTABLE = ("suspend", "ttl_seconds_after_finished")


def unchanged(model: type[ApiModel], mutable: tuple[str, ...]) -> str:
    """A CEL expression: nothing but the named fields has changed.

    CEL has no way to compare all members but one, hence a term for each. A member that the API
    server gives no default may be missing, and a rule must not read what is missing.
    """
    terms = []
    for name, field in model.model_fields.items():
        if name in mutable:
            continue
        alias = field.alias or name
        same = f"self.{alias} == oldSelf.{alias}"
        if field.default is None or field.default_factory:
            same = f"has(self.{alias}) == has(oldSelf.{alias}) && (!has(self.{alias}) || {same})"
        terms.append(f"({same})")
    return " && ".join(terms)


class FineTuneJobSpec(ApiModel):
    """What to train, on what, and where the result goes."""

    base_model: ModelSource = Field(description="The model that is tuned.")
    dataset: DatasetSource = Field(description="The examples it is tuned on.")
    method: Method = Field(default=Method.LORA, description=METHOD_DESCRIPTION)
    adapter_name: str | None = Field(
        default=None,
        max_length=63,
        description=(
            "Name under which the adapter is served; jobs with the same one make versions of the "
            "same adapter, and the newest that passed answers. Default: the job's name."
        ),
        json_schema_extra=rules(
            rule(
                f"self.matches('{SERVED_NAME}')",
                "adapterName may hold letters, digits, '-', '_' and '.'",
            )
        ),
    )
    lora: Lora = Field(default=Lora(), description="The adapter's shape, unless method is Full.")
    training: Training = Field(default=Training(), description="How the model is trained.")
    backend: Backend = Field(
        default=Backend.TUNESMITH,
        description=(
            "Whose code does the training step: our own, or Unsloth where the trainer image has it."
        ),
    )
    output: Output | None = Field(
        default=None,
        description=(
            "Where the adapter goes. Unset: where a TuningPolicy says that jobs of this namespace "
            "store theirs; status.output says where that is."
        ),
    )
    evaluation: Evaluation = Field(
        default=Evaluation(), description="How the adapter must prove itself before it is served."
    )
    report_to: list[ReportTo] = Field(
        default_factory=list,
        max_length=3,
        description="Tools that draw loss curves, besides status and report.",
    )
    resources: TrainingResources = Field(
        default=TrainingResources(), description="What training asks for."
    )
    suspend: bool = Field(
        default=False,
        description=(
            "Stop, and give the GPUs back, until it is false again; training goes on from its last "
            "checkpoint then. May be changed at any time."
        ),
    )
    backoff_limit: int = Field(
        default=3,
        description=(
            "How many further attempts follow one that failed through no fault of the spec or the "
            "data: lost node, out of memory, crash."
        ),
        json_schema_extra=between(0, 100, "backoffLimit"),
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        description="Longest time in seconds that one attempt may run.",
        json_schema_extra=rules(
            rule("self >= 1", "activeDeadlineSeconds must be at least 1 second")
        ),
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        description=(
            "Delete this object, and with it its Jobs and EvalRuns, so many seconds after it is "
            "Ready, Rejected or Failed. What it stored stays, but an adapter is only served while "
            "its job exists. Unset: never. May be changed at any time."
        ),
        json_schema_extra=rules(
            rule("self >= 0", "ttlSecondsAfterFinished must be 0 or more seconds")
        ),
    )
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="Image, node selection and environment of the pods."
    )


FineTuneJobSpec.cel_rules = (
    rule(
        unchanged(FineTuneJobSpec, MUTABLE),
        "the spec of a FineTuneJob cannot be changed (but for suspend and "
        "ttlSecondsAfterFinished), so that its result always says how it was made: apply a job "
        "with a new name, or delete this one first",
    ),
    rule(
        "self.backend != 'Unsloth' || (self.resources.gpus == 1 && self.resources.nodes == 1 && "
        "self.method in ['Auto', 'LoRA', 'QLoRA'])",
        "backend: Unsloth trains LoRA or QLoRA on exactly one GPU: set resources.gpus to 1 and "
        "method to LoRA, or leave backend out",
    ),
)


class TrainingPhase(StrEnum):
    """Where the trainer is."""

    STARTING = "Starting"
    PREPARING = "Preparing"
    TRAINING = "Training"
    SAVING = "Saving"
    DONE = "Done"


class Preparation(AttemptStatus):
    """The preparation of the data, on a CPU, before a GPU is asked for."""

    uri: Uri | None = Field(default=None, description="Folder of the prepared examples.")
    warnings: list[Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=list,
        max_length=16,
        description="What is worth telling about the data, a sentence each.",
    )


class GpuSeconds(ApiModel):
    """What the attempts so far have used."""

    attempts: int = Field(description="Training attempts that have ended.")
    gpu_seconds: int = Field(description="Seconds that they ran, times their GPUs.")


class Progress(ApiModel):
    """How far training is. Read from the pod every few seconds; gone things are left out."""

    phase: TrainingPhase = Field(description="What the trainer is doing.")
    step: int | None = Field(default=None, description="Optimiser steps done.")
    total_steps: int | None = Field(default=None, description="Optimiser steps in all.")
    percent: int | None = Field(default=None, description="Steps done, in percent.")
    epoch: float | None = Field(default=None, description="Passes over the data so far.")
    loss: float | None = Field(default=None, description="Training loss of the last steps.")
    eval_loss: float | None = Field(
        default=None,
        description="Last loss on the training examples set aside to choose the best epoch by.",
    )
    eval_losses: list[float] = Field(
        default_factory=list,
        max_length=100,
        description="That loss after each epoch, in their order. Held-out examples have no part.",
    )
    tokens_per_second: float | None = Field(default=None, description="Tokens trained a second.")
    peak_memory_bytes: int | None = Field(
        default=None, description="Most memory used so far, of the GPU or else of the process."
    )
    eta: str | None = Field(default=None, max_length=32, description="Time left, such as 12m30s.")
    attempt: int | None = Field(
        default=None, description="Attempts at this result so far that got as far as training."
    )


class ArtifactKind(StrEnum):
    """What training makes."""

    ADAPTER = "Adapter"
    MODEL = "Model"


class Artifact(ApiModel):
    """The adapter or model that came out."""

    kind: ArtifactKind = Field(
        default=ArtifactKind.ADAPTER, description="Adapter, or Model for method Full."
    )
    uri: Uri = Field(description="Folder with weights, tokenizer, lineage and held-out examples.")
    digest: Digest = Field(description="sha256 over the adapter's, or the model's, files.")
    base_model_digest: Digest = Field(description="sha256 over the base model's weights.")
    rank: int | None = Field(default=None, description="Rank of the adapter.")
    report: str | None = Field(
        default=None, max_length=64, description="The training's report in that folder."
    )
    oci_reference: str | None = Field(
        default=None, max_length=512, description="Where it was pushed as an OCI artifact, too."
    )
    oci_digest: Digest | None = Field(
        default=None, description="sha256 of the manifest there: REPOSITORY@sha256:... names it."
    )


class JobState(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    AWAITING_REVIEW = "AwaitingReview"
    PREFLIGHT = "Preflight"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    TRAINING = "Training"
    SAVING = "Saving"
    RETRYING = "Retrying"
    WAITING = "Waiting"
    EVALUATING = "Evaluating"
    READY = "Ready"
    REJECTED = "Rejected"
    FAILED = "Failed"


class FineTuneJobStatus(AttemptStatus):
    """What has been observed."""

    state: JobState | None = Field(default=None, description="One word for people.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description=(
            "Succeeded: trained and stored. Ready: passed its evaluation and may be served. "
            "Finished: Ready, Rejected or Failed. Suspended: by spec.suspend. "
            "Prepared: the data is fit to train on. Reviewed: a person approved it. "
            "Preflight: the base model is where fine-tuning pays off. "
            "Reconciling, Stalled: for tools. Warning: something outside the proven range."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    progress: Progress | None = Field(default=None, description="How far training is.")
    dataset: DatasetReceipt | None = Field(default=None, description="What became of the rows.")
    preparation: Preparation | None = Field(
        default=None, description="The attempts to prepare the data."
    )
    review: JobReview | None = Field(default=None, description="The review of the data.")
    plan: MemoryPlan | None = Field(
        default=None, description="How training fits into memory; made before it starts."
    )
    usage: GpuSeconds | None = Field(
        default=None, description="What the ended training attempts have used."
    )
    artifact: Artifact | None = Field(default=None, description="The adapter that came out.")
    preflight: JobPreflight | None = Field(
        default=None, description="What the base model could do before training."
    )
    evaluation: JobEvaluation | None = Field(default=None, description="How it was judged.")
    output: OutputStore | None = Field(
        default=None,
        description=(
            "Where a job without spec.output stores its adapter, as a TuningPolicy said when the "
            "job was first seen. A policy that changes does not move it."
        ),
    )
    adjustments: list[Adjustment] = Field(
        default_factory=list,
        max_length=5,
        description="The changes that evaluation.onFailure: Retry made to training, oldest first.",
    )
    completion_time: Timestamp | None = Field(default=None, description="When training succeeded.")


class FineTuneJob(ApiModel):
    """Trains an adapter for a base model on a dataset, evaluates it, and offers it for serving."""

    metadata: ObjectMeta
    spec: FineTuneJobSpec = Field(description="What to train, on what, and where it goes.")
    status: FineTuneJobStatus = Field(
        default=FineTuneJobStatus(), description="What has been observed. Written by the operator."
    )

    cel_rules = (
        rule(
            f"self.metadata.name.size() <= {MAXIMUM_NAME_LENGTH} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name becomes the name under which the adapter is served: use at most "
            f"{MAXIMUM_NAME_LENGTH} lower-case letters, digits and '-', beginning with a letter",
        ),
    )

    @property
    def output(self) -> Output | None:
        """Where the adapter goes; None while nobody has said so."""
        pinned = self.status.output
        found = Output(uri=pinned.uri, secret_ref=pinned.secret_ref) if pinned else None
        return self.spec.output or found

    @property
    def output_secret(self) -> SecretReference | None:
        """The Secret that opens the place where the adapter goes."""
        return self.output.secret_ref if self.output else None

    @classmethod
    def from_object(cls, raw: dict[str, Any]) -> FineTuneJob:
        """Parse the object as the API server returned it. Raises pydantic.ValidationError."""
        return cls.model_validate(raw)
