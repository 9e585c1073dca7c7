"""FineTuneJob: a base model, a dataset and a method become an adapter."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tunesmith.api.dataset import DatasetSource
from tunesmith.api.job_evaluation import Evaluation
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.api.method import METHOD_DESCRIPTION, Lora, Method
from tunesmith.api.objects import (
    SERVED_NAME,
    ModelSource,
    ObjectMeta,
    PodTemplate,
    Quantity,
    Resources,
    SecretReference,
    Uri,
)
from tunesmith.api.output import Output
from tunesmith.api.schema import ApiModel, between, rule, rules
from tunesmith.api.training import Backend, ReportKind, Training

#: The longest name whose children's names still fit into a label (63 characters).
MAXIMUM_NAME_LENGTH = 40


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
            "data, nor because the cluster took its pod away: out of memory, crash."
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
