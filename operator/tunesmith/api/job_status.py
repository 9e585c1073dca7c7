"""What is observed of a FineTuneJob: how far it is, what came out, how it was judged."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tunesmith.api.dataset import DatasetReceipt, JobReview
from tunesmith.api.job_evaluation import Adjustment, JobEvaluation, JobPreflight
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.objects import (
    AttemptStatus,
    Condition,
    Digest,
    Timestamp,
    Uri,
)
from tunesmith.api.output import OutputStore
from tunesmith.api.schema import ApiModel


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
    base_model_revision: str | None = Field(
        default=None,
        max_length=64,
        description=(
            "Commit of the base model's hub repository, whatever was asked for. Every attempt and "
            "every pod trains this one."
        ),
    )
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


#: States that nothing follows by itself.
FINISHED = frozenset({JobState.READY, JobState.REJECTED, JobState.FAILED})


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
