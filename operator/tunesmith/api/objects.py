"""Parts that more than one kind uses: conditions, references, resources, the pod template."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from tunesmith.api.locations import (
    ARCHIVE_PATTERN,
    HUB_MODEL_PATTERN,
    PVC_PATTERN,
    S3_PATTERN,
    any_of,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

Name = Annotated[str, Field(min_length=1, max_length=253)]
Uri = Annotated[str, Field(min_length=1, max_length=1024)]
Digest = Annotated[str, Field(max_length=71)]
Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def _written_out(value: object) -> object:
    """``cpu: 8`` is a number to YAML and a quantity to everybody."""
    return str(value) if type(value) is int else value


#: A Kubernetes quantity such as 500m, 2 or 16Gi.
Quantity = Annotated[
    str,
    BeforeValidator(_written_out),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            **rules(
                rule(
                    "isQuantity(string(self))",
                    "must be a Kubernetes quantity such as 500m, 2 or 16Gi",
                )
            ),
        }
    ),
]

#: What a name in a request's model field may hold; '@' is kept for versions.
SERVED_NAME = "^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"

NO_PARENT = rule("!self.contains('..')", "a uri must not contain '..'")
DIGEST_RULE = rule(
    "self.matches('^sha256:[0-9a-f]{64}$')",
    "a digest must be sha256: and 64 hexadecimal digits, as sha256sum and status show it",
)
#: Over an object with uri, secretRef and digest.
SECRET_RULE = rule(
    "!has(self.secretRef) || !(self.uri.startsWith('pvc://') || "
    "self.uri.startsWith('configmap://'))",
    "secretRef is only used for hf://, s3:// and https:// sources: remove it, or correct the uri",
)
HTTPS_DIGEST_RULE = rule(
    "!self.uri.startsWith('https://') || has(self.digest)",
    "https:// needs a digest: what a server gives today it need not give tomorrow. Set digest to "
    "sha256: and what sha256sum says of the file",
)
SECRET_DESCRIPTION = (
    "Secret that opens the source: key HF_TOKEN for hf://; AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY for s3://, and if needed AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and "
    "AWS_REGION; HTTPS_AUTHORIZATION, the whole header, for https://. The keys are handed to the "
    "pod as environment variables; the operator never reads them. Unset: what is public, or what "
    "podTemplate gives the pod."
)


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One fact about the object, in the form of metav1.Condition."""

    type: str = Field(max_length=64, description="What the fact is about, for example Ready.")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(max_length=128, description="One word for machines: why it holds or not.")
    message: str = Field(
        max_length=4096, description="A sentence for people: what happened and what to do."
    )
    observed_generation: int = Field(
        default=0, description="The generation of the spec that this was observed for."
    )
    last_transition_time: Timestamp = Field(description="When the status last changed.")


class SecretReference(ApiModel):
    """A Secret in the same namespace."""

    name: Name = Field(description="Name of the Secret.")


class ModelSource(ApiModel):
    """A base model in Hugging Face format."""

    uri: Uri = Field(
        description=(
            "Where the model is: hf://ORGANISATION/NAME[@REVISION] on the Hugging Face Hub, "
            "pvc://CLAIM/FOLDER on a PersistentVolumeClaim of this namespace, s3://BUCKET/FOLDER "
            "in any S3-compatible store, or a tar archive at https://HOST/PATH.tar.gz."
        ),
        json_schema_extra=rules(
            rule(
                any_of(HUB_MODEL_PATTERN, PVC_PATTERN, S3_PATTERN, ARCHIVE_PATTERN),
                "a base model's uri must be hf://ORGANISATION/NAME[@REVISION], "
                "pvc://CLAIM/FOLDER, s3://BUCKET/FOLDER or https://HOST/PATH that ends in .tar, "
                ".tar.gz or .tgz, for example hf://meta-llama/Llama-3.1-8B-Instruct",
            ),
            NO_PARENT,
        ),
    )
    digest: Digest | None = Field(
        default=None,
        description=(
            "What must be found there, else the job fails: for https:// sha256 of the archive, "
            "which is required; else of config.json and the weights, as "
            "status.artifact.baseModelDigest shows it."
        ),
        json_schema_extra=rules(DIGEST_RULE),
    )
    secret_ref: SecretReference | None = Field(default=None, description=SECRET_DESCRIPTION)

    cel_rules = (SECRET_RULE, HTTPS_DIGEST_RULE)


class DatasetFormat(StrEnum):
    AUTO = "Auto"
    MESSAGES = "Messages"
    SHARE_GPT = "ShareGPT"
    ALPACA = "Alpaca"
    PROMPT_COMPLETION = "PromptCompletion"


class HeldOut(ApiModel):
    """The examples that training never sees."""

    fraction: float = Field(
        default=0.1,
        description=(
            "Share of the examples set aside for evaluation, chosen by content before any "
            "cleaning: at least 0.1, at most 0.5."
        ),
        json_schema_extra=between(
            0.1, 0.5, "heldOut.fraction", "at least a tenth of the data must stay unseen"
        ),
    )
    seed: int = Field(default=42, description="Seed of the choice; the same seed, the same split.")


class Resources(ApiModel):
    """What one pod asks for. Requests and limits are the same, as GPUs demand."""

    gpus: int = Field(
        default=1,
        description="GPUs per pod (nvidia.com/gpu). 0 runs on the CPU: for tests and tiny models.",
        json_schema_extra=rules(
            rule("self >= 0 && self <= 16", "resources.gpus must be between 0 and 16")
        ),
    )
    cpu: Quantity | None = Field(default=None, description="CPU cores, for example 8 or 500m.")
    memory: Quantity | None = Field(default=None, description="Memory, for example 64Gi.")


#: Evaluation uses one GPU.
ONE_GPU = rule(
    "self.resources.gpus <= 1",
    "resources.gpus must be 0 or 1: an evaluation uses one GPU",
)


class EnvironmentVariable(ApiModel):
    """A plain environment variable. For secrets use a secretRef of the source that needs it."""

    name: str = Field(
        max_length=128,
        description="Name of the variable.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                "an environment variable's name may hold letters, digits and underscores",
            )
        ),
    )
    value: str = Field(default="", max_length=4096, description="Its value.")


class Toleration(ApiModel):
    """A taint that the pod tolerates, as in a pod's own spec."""

    key: str | None = Field(default=None, max_length=317, description="Key of the taint.")
    operator: str | None = Field(
        default=None,
        max_length=6,
        description="Exists or Equal.",
        json_schema_extra={"enum": ["Exists", "Equal"]},
    )
    value: str | None = Field(default=None, max_length=63, description="Value of the taint.")
    effect: str | None = Field(
        default=None,
        max_length=16,
        description="NoSchedule, PreferNoSchedule or NoExecute; empty matches all.",
        json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    )
    toleration_seconds: int | None = Field(
        default=None, description="For NoExecute: how long the pod stays."
    )


Labels = Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=64)]


class PodTemplate(ApiModel):
    """What the pods need beyond their purpose: where they run and with which image."""

    image: str | None = Field(
        default=None,
        max_length=512,
        description="Image instead of the one that the platform team installed.",
    )
    image_pull_secrets: list[SecretReference] = Field(
        default_factory=list,
        max_length=8,
        description="Secrets for pulling that image.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    node_selector: Labels = Field(
        default_factory=dict, description="Labels that the node must carry."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, max_length=16, description="Taints that the pod tolerates."
    )
    env: list[EnvironmentVariable] = Field(
        default_factory=list,
        max_length=64,
        description="Environment variables added to the main container.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    labels: Labels = Field(default_factory=dict, description="Labels added to the pod.")
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)
    ] = Field(default_factory=dict, description="Annotations added to the pod.")
    priority_class_name: str | None = Field(
        default=None, max_length=253, description="PriorityClass of the pod."
    )
    runtime_class_name: str | None = Field(
        default=None, max_length=253, description="RuntimeClass of the pod."
    )
    service_account_name: str | None = Field(
        default=None,
        max_length=253,
        description="ServiceAccount of the pod. Its token is never mounted.",
    )

    cel_rules = (
        rule(
            "!has(self.labels) || !self.labels.exists(key, key.startsWith('tunesmith.dev/'))",
            "podTemplate.labels must not use the prefix tunesmith.dev/: Tunesmith finds its pods "
            "by those labels",
        ),
    )


class FailureClass(StrEnum):
    """Whose fault it was."""

    USER_ERROR = "UserError"
    DATA_UNREACHABLE = "DataUnreachable"
    OUT_OF_MEMORY = "OutOfMemory"
    PREEMPTED = "Preempted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INTERNAL = "Internal"


class Failure(ApiModel):
    """How the last failed attempt ended."""

    attempt: int = Field(description="Number of the attempt, from 1.")
    failure_class: FailureClass = Field(
        alias="class",
        description=(
            "Whose fault it was. UserError and DataUnreachable wait until it is mended, Preempted "
            "goes on elsewhere; the others count towards backoffLimit."
        ),
    )
    reason: str = Field(max_length=128, description="One word for what went wrong.")
    message: str = Field(max_length=2048, description="What went wrong and what to do.")
    exit_code: int | None = Field(default=None, description="Exit code of the container.")
    finished_at: Timestamp = Field(description="When the attempt ended.")


class AttemptStatus(ApiModel):
    """The part of a status that tells of attempts, for the kinds that work through batch Jobs."""

    observed_generation: int | None = Field(
        default=None, description="The generation of the spec that this status is about."
    )
    attempt: int | None = Field(default=None, description="Number of the current attempt, from 1.")
    counted_failures: int | None = Field(
        default=None, description="Failed attempts that count towards backoffLimit."
    )
    job_name: str | None = Field(
        default=None, max_length=253, description="The batch Job of the current attempt."
    )
    failure: Failure | None = Field(default=None, description="How the last failed attempt ended.")
    start_time: Timestamp | None = Field(default=None, description="When the first attempt began.")


class Kind(StrEnum):
    """The three kinds."""

    FINE_TUNE_JOB = "FineTuneJob"
    EVAL_RUN = "EvalRun"
    ADAPTER_DEPLOYMENT = "AdapterDeployment"


class ObjectMeta(ApiModel):
    """The part of Kubernetes' metadata that the planners read."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
