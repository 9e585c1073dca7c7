"""FineTuneJob: a base model, a dataset and a method become an adapter."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from tunesmith.api.job_evaluation import Adjustment, Evaluation, JobEvaluation, JobPreflight
from tunesmith.api.locations import (
    CONFIG_MAP_PATTERN,
    HUB_DATASET_PATTERN,
    PVC_FOLDER_PATTERN,
    PVC_PATTERN,
)
from tunesmith.api.objects import (
    NO_PARENT,
    ONE_GPU,
    SERVED_NAME,
    AttemptStatus,
    Condition,
    DatasetFormat,
    Digest,
    HeldOut,
    ModelSource,
    ObjectMeta,
    PodTemplate,
    Resources,
    SecretReference,
    Timestamp,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

#: The longest name whose children's names still fit into a label (63 characters).
MAXIMUM_NAME_LENGTH = 40


class DatasetSource(ApiModel):
    """Training examples as JSON Lines: one JSON object per line."""

    uri: Uri = Field(
        description=(
            "Where the file is: pvc://CLAIM/PATH, configmap://NAME/KEY for small data, or "
            "hf://datasets/ORGANISATION/NAME[@REVISION]/PATH."
        ),
        json_schema_extra=rules(
            rule(
                f"self.matches('{PVC_PATTERN}') || self.matches('{CONFIG_MAP_PATTERN}') || "
                f"self.matches('{HUB_DATASET_PATTERN}')",
                "a dataset's uri must be pvc://CLAIM/PATH, configmap://NAME/KEY or "
                "hf://datasets/ORGANISATION/NAME[@REVISION]/PATH, "
                "for example pvc://data/tickets.jsonl",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None, description="Secret whose key HF_TOKEN opens a gated hub dataset."
    )
    format: DatasetFormat = Field(
        default=DatasetFormat.AUTO,
        description=(
            "Messages: {messages: [{role, content}, ...]}. Alpaca: {instruction, input, output}. "
            "Auto tells them apart by the first row."
        ),
    )
    held_out: HeldOut = Field(
        default=HeldOut(), description="The examples kept from training, for evaluation."
    )

    cel_rules = (
        rule(
            "!has(self.secretRef) || self.uri.startsWith('hf://')",
            "secretRef is only used for hf:// sources: remove it, or use an hf:// uri",
        ),
    )


class Method(StrEnum):
    LORA = "LoRA"


class Lora(ApiModel):
    """The adapter's shape. Defaults: arXiv:2106.09685 and the practice since."""

    rank: int = Field(
        default=16,
        description=(
            "Rank r of the update matrices. 4 to 64 in powers of two is the proven range; more "
            "rank is more capacity and more memory. Up to 512 can be served."
        ),
        json_schema_extra=between(
            1, 512, "lora.rank", "start at 16, and stay between 4 and 64 unless you measured it"
        ),
    )
    alpha: int = Field(
        default=32,
        description="Scaling: the update is multiplied by alpha / rank. Use rank or twice rank.",
        json_schema_extra=between(1, 2048, "lora.alpha", "use rank or twice the rank"),
    )
    dropout: float = Field(
        default=0.05,
        description="Dropout on the adapter's input: 0.05 for small data, 0 for large; at most 0.1 "
        "is recommended.",
        json_schema_extra=between(0, 0.9, "lora.dropout", "0.05 suits small datasets"),
    )
    target_modules: list[str] = Field(
        default=PROJECTIONS,
        min_length=1,
        max_length=32,
        description=(
            "Names of the linear layers that get an adapter. The default is the four attention and "
            "the three MLP projections of Llama-like models."
        ),
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": 128},
            **rules(
                rule(
                    "self.all(module, module != 'lm_head' && module != 'embed_tokens')",
                    "lora.targetModules must not name lm_head or embed_tokens: vLLM cannot serve "
                    "such an adapter",
                )
            ),
        },
    )


class Training(ApiModel):
    """How the adapter is trained."""

    epochs: int = Field(
        default=3,
        description="Passes over the training examples.",
        json_schema_extra=between(1, 100, "training.epochs", "1 to 5 is usual"),
    )
    learning_rate: float = Field(
        default=2e-4,
        description="Peak learning rate; it follows a cosine after the warm-up.",
        json_schema_extra=rules(
            rule(
                "double(self) > 0.0 && double(self) <= 0.1",
                "training.learningRate must be above 0 and at most 0.1; 0.0002 suits LoRA",
            )
        ),
    )
    warmup_ratio: float = Field(
        default=0.05,
        description="Share of the steps in which the learning rate rises from 0.",
        json_schema_extra=between(0, 0.5, "training.warmupRatio"),
    )
    max_length: int = Field(
        default=2048,
        description="Longest sequence in tokens; also the length that packing fills.",
        json_schema_extra=between(16, 131072, "training.maxLength"),
    )
    packing: bool = Field(
        default=True, description="Fill each sequence with several short examples."
    )
    batch_size: int = Field(
        default=8,
        description="Sequences per optimiser step: micro-batches are accumulated to this number.",
        json_schema_extra=between(1, 4096, "training.batchSize"),
    )
    micro_batch_size: int = Field(
        default=2,
        description="Sequences per forward pass. Must divide batchSize. Lower it to save memory.",
        json_schema_extra=between(1, 1024, "training.microBatchSize"),
    )
    seed: int = Field(default=42, description="Seed of everything random in training.")

    cel_rules = (
        rule(
            "self.batchSize % self.microBatchSize == 0",
            "training.batchSize must be a multiple of training.microBatchSize, for example 8 and 2",
        ),
    )


class Output(ApiModel):
    """Where the adapter goes."""

    uri: Uri = Field(
        max_length=200,
        description=(
            "Folder for adapters: pvc://CLAIM[/FOLDER]. The adapter gets a folder of its own below "
            "it, named after this job and the adapter's digest."
        ),
        json_schema_extra=rules(
            rule(
                f"self.matches('{PVC_FOLDER_PATTERN}')",
                "output.uri must be pvc://CLAIM or pvc://CLAIM/FOLDER, for example pvc://adapters",
            ),
            NO_PARENT,
        ),
    )


class FineTuneJobSpec(ApiModel):
    """What to train, on what, and where the result goes."""

    base_model: ModelSource = Field(description="The model that is tuned.")
    dataset: DatasetSource = Field(description="The examples it is tuned on.")
    method: Method = Field(
        default=Method.LORA,
        description=(
            "How the model is tuned. LoRA trains small matrices beside the frozen weights: about "
            "1% of the parameters, an adapter of some megabytes that vLLM serves next to the base."
        ),
    )
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
    lora: Lora = Field(default=Lora(), description="The adapter's shape, for method LoRA.")
    training: Training = Field(default=Training(), description="How the adapter is trained.")
    output: Output = Field(description="Where the adapter goes.")
    evaluation: Evaluation = Field(
        default=Evaluation(), description="How the adapter must prove itself before it is served."
    )
    resources: Resources = Field(default=Resources(), description="What the training pod asks for.")
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
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="Image, node selection and environment of the pods."
    )

    cel_rules = (
        ONE_GPU,
        rule(
            "!has(self.baseModel.secretRef) || !has(self.dataset.secretRef) || "
            "self.baseModel.secretRef.name == self.dataset.secretRef.name",
            "baseModel.secretRef and dataset.secretRef must name the same Secret: one HF_TOKEN "
            "opens both",
        ),
        rule(
            "self == oldSelf",
            "the spec of a FineTuneJob cannot be changed, so that its result always says how it "
            "was made: apply a job with a new name, or delete this one first",
        ),
    )


class TrainingPhase(StrEnum):
    """Where the trainer is."""

    STARTING = "Starting"
    PREPARING = "Preparing"
    TRAINING = "Training"
    SAVING = "Saving"
    DONE = "Done"


class Progress(ApiModel):
    """How far training is. Read from the pod every few seconds; gone things are left out."""

    phase: TrainingPhase = Field(description="What the trainer is doing.")
    step: int | None = Field(default=None, description="Optimiser steps done.")
    total_steps: int | None = Field(default=None, description="Optimiser steps in all.")
    percent: int | None = Field(default=None, description="Steps done, in percent.")
    epoch: float | None = Field(default=None, description="Passes over the data so far.")
    loss: float | None = Field(default=None, description="Training loss of the last steps.")
    eval_loss: float | None = Field(default=None, description="Last loss on held-out examples.")
    eval_losses: list[float] = Field(
        default_factory=list,
        max_length=100,
        description="Loss on held-out examples after each epoch, in their order.",
    )
    tokens_per_second: float | None = Field(default=None, description="Tokens trained a second.")
    peak_memory_bytes: int | None = Field(
        default=None, description="Most memory used so far, of the GPU or else of the process."
    )
    eta: str | None = Field(default=None, max_length=32, description="Time left, such as 12m30s.")


class Artifact(ApiModel):
    """The adapter that came out."""

    uri: Uri = Field(description="Folder with adapter, tokenizer, lineage and held-out examples.")
    digest: Digest = Field(description="sha256 over the adapter's files.")
    base_model_digest: Digest = Field(description="sha256 over the base model's weights.")
    rank: int = Field(description="Rank of the adapter.")


class DatasetReceipt(ApiModel):
    """What became of the dataset's rows."""

    digest: Digest = Field(description="sha256 of the rows in canonical form.")
    rows: int = Field(description="Rows read.")
    held_out_rows: int = Field(description="Rows set aside for evaluation.")
    held_out_digest: Digest = Field(description="sha256 of the held-out rows.")
    duplicate_rows: int = Field(description="Rows dropped from training as exact duplicates.")
    train_rows: int = Field(description="Rows trained on.")


class JobState(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    PREFLIGHT = "Preflight"
    PREPARING = "Preparing"
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
            "Preflight: the base model is where fine-tuning pays off. "
            "Reconciling, Stalled: for tools. Warning: something outside the proven range."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    progress: Progress | None = Field(default=None, description="How far training is.")
    dataset: DatasetReceipt | None = Field(default=None, description="What became of the rows.")
    artifact: Artifact | None = Field(default=None, description="The adapter that came out.")
    preflight: JobPreflight | None = Field(
        default=None, description="What the base model could do before training."
    )
    evaluation: JobEvaluation | None = Field(default=None, description="How it was judged.")
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

    @classmethod
    def from_object(cls, raw: dict[str, Any]) -> FineTuneJob:
        """Parse the object as the API server returned it. Raises pydantic.ValidationError."""
        return cls.model_validate(raw)
