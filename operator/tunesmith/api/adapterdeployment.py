"""AdapterDeployment: every ready adapter of one base model, served by vLLM."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from tunesmith.api.locations import PVC_PATTERN
from tunesmith.api.objects import (
    NO_PARENT,
    SERVED_NAME,
    Condition,
    Digest,
    Labels,
    ModelSource,
    Name,
    ObjectMeta,
    PodTemplate,
    Resources,
    SecretReference,
    Timestamp,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

MAXIMUM_NAME_LENGTH = 45
#: Bounds that vLLM accepts for an adapter's rank.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

#: Arguments of vLLM that a user may set: those that cannot change where it listens, what it is
#: called, which adapters it holds or whom it lets in.
FREE_ARGUMENTS = (
    "block-size",
    "compilation-config",
    "cpu-offload-gb",
    "dtype",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-prefix-caching",
    "enforce-eager",
    "generation-config",
    "gpu-memory-utilization",
    "kv-cache-dtype",
    "load-format",
    "max-num-batched-tokens",
    "max-num-seqs",
    "max-seq-len-to-capture",
    "override-generation-config",
    "pipeline-parallel-size",
    "quantization",
    "reasoning-parser",
    "seed",
    "specialize-active-lora",
    "tool-call-parser",
)


class LabelSelector(ApiModel):
    """Chooses FineTuneJobs by their labels."""

    match_labels: Labels = Field(
        default_factory=dict,
        description="Labels that a FineTuneJob must carry. Empty chooses all of this namespace.",
    )


class GateRule(StrEnum):
    """What must have happened before an adapter is served."""

    PASSED = "Passed"
    NONE = "None"


class NamedAdapter(ApiModel):
    """An adapter that no FineTuneJob of this namespace made, or not the one wanted."""

    name: str = Field(
        max_length=63,
        description="Name to put into a request's model field. Several entries with one name are "
        "versions of it; the last is the newest.",
        json_schema_extra=rules(
            rule(
                f"self.matches('{SERVED_NAME}')",
                "an adapter's name may hold letters, digits, '-', '_' and '.'",
            )
        ),
    )
    uri: Uri = Field(
        description="Folder of the adapter: pvc://CLAIM/FOLDER.",
        json_schema_extra=rules(
            rule(f"self.matches('{PVC_PATTERN}')", "an adapter's uri must be pvc://CLAIM/FOLDER"),
            NO_PARENT,
        ),
    )
    digest: str = Field(
        max_length=71,
        description="sha256 over its files, as `sha256sum adapter_config.json "
        "adapter_model.safetensors | sha256sum` prints it, after 'sha256:'.",
        json_schema_extra=rules(
            rule(
                "self.matches('^sha256:[0-9a-f]{64}$')",
                "digest must be sha256: and 64 hexadecimal digits, as a job's status shows it",
            )
        ),
    )
    gate: GateRule = Field(
        default=GateRule.PASSED,
        description="Passed: some EvalRun of this namespace gave exactly this digest the verdict "
        "Passed, for this base model. None: it is served unjudged, and status says so.",
    )


class Canary(ApiModel):
    """A new version first gets a part of the requests."""

    weight: int = Field(
        default=10,
        description="Percent of the requests to the name that the new version answers.",
        json_schema_extra=between(1, 99, "canary.weight"),
    )
    minutes: float = Field(
        default=10,
        description="How long, before it is promoted or rolled back.",
        json_schema_extra=between(0.05, 10080, "canary.minutes"),
    )
    max_error_percent: float = Field(
        default=1,
        description="It is rolled back when the share of its requests that end in an error is "
        "higher than that of the promoted version by more than this.",
        json_schema_extra=between(0, 100, "canary.maxErrorPercent"),
    )


class Pin(ApiModel):
    """Holds a name at one version: to roll back, or to promote at once."""

    name: str = Field(max_length=63, description="The served name.")
    version: str = Field(
        max_length=12,
        description="The version that answers, as status.adapters shows it.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[0-9a-f]{12}$')",
                "version must be the 12 hexadecimal digits that status.adapters shows",
            )
        ),
    )


class AdapterSelection(ApiModel):
    """Which adapters are served, and how a new version takes over."""

    selector: LabelSelector | None = Field(
        default=None,
        description=(
            "FineTuneJobs of the same base model whose adapters are served. An adapter joins when "
            "its job is Ready: trained, and passed for exactly that digest. Default: all of this "
            "namespace, or none when adapters are named."
        ),
    )
    named: list[NamedAdapter] = Field(
        default_factory=list,
        max_length=1000,
        description="Adapters by uri and digest.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "digest"],
        },
    )
    claims: list[Name] = Field(
        default_factory=list,
        max_length=16,
        description="PersistentVolumeClaims that the pods mount from their start, so that an "
        "adapter that comes to lie on one joins without rolling them. Claims of adapters, and of "
        "jobs that are being trained, are mounted in any case.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    canary: Canary | None = Field(
        default=None, description="Default: a new version takes over once all replicas have it."
    )
    pins: list[Pin] = Field(
        default_factory=list,
        max_length=1000,
        description="Names held at one version.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    keep_versions: int = Field(
        default=1,
        description="Superseded versions of a name that stay loaded, to be asked as name@version "
        "and to be pinned without waiting.",
        json_schema_extra=between(0, 10, "keepVersions"),
    )
    delete_files: bool = Field(
        default=False,
        description="Delete the folder of a version that was superseded and is kept no longer, "
        "once all replicas have unloaded it and no other AdapterDeployment here serves it. "
        "What was only deselected is left alone.",
    )


class Strategy(StrEnum):
    """How adapters meet the base model."""

    ADAPTERS = "Adapters"
    MERGED = "Merged"
    AUTO = "Auto"


class Server(ApiModel):
    """vLLM's own settings. What is not set is computed, and shown in status.server."""

    max_loras: int | None = Field(
        default=None,
        description="Adapters that one batch may use at once; requests for others wait. Default: "
        "from the number of adapters when the pods are made, 4 to 16.",
        json_schema_extra=between(1, 256, "server.maxLoras"),
    )
    max_lora_rank: int | None = Field(
        default=None,
        description="Highest rank that can be served. Default: that of the adapters, at least 16; "
        "a higher one that joins later rolls the pods. A bound that is set refuses it instead.",
        json_schema_extra=rules(
            rule(
                f"self in {list(LORA_RANKS)}",
                f"server.maxLoraRank must be one of {', '.join(map(str, LORA_RANKS))}: vLLM takes "
                "no other",
            )
        ),
    )
    max_cpu_loras: int | None = Field(
        default=None,
        description="Adapters kept in the pod's memory; others are read again from their files. "
        "Default: as many as fit into a quarter of resources.memory, at most 1000.",
        json_schema_extra=between(1, 10000, "server.maxCpuLoras"),
    )
    arguments: Annotated[
        dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=32)
    ] = Field(
        default_factory=dict,
        description="Further arguments of vLLM by name, without dashes, for example "
        "gpu-memory-utilization: '0.95'.",
        json_schema_extra=rules(
            rule(
                f"self.all(name, name in {list(FREE_ARGUMENTS)})",
                "server.arguments may hold: " + ", ".join(FREE_ARGUMENTS),
            )
        ),
    )


class ClientGrant(ApiModel):
    """What one client may ask."""

    client: str = Field(max_length=253, description="The key's name in the Secret.")
    models: list[Annotated[str, Field(max_length=128)]] = Field(
        max_length=256, description="Served names; '*' stands for any characters."
    )


class Access(ApiModel):
    """Who may ask."""

    secret_ref: SecretReference = Field(
        description="Secret whose entries are the clients: the key is the client's name, the value "
        "its API key. The proxy of each pod reads it; the operator does not. New clients are "
        "known within about a minute, without a restart."
    )
    grants: list[ClientGrant] = Field(
        default_factory=list,
        max_length=256,
        description="What each client may ask. Empty: every client may ask for everything.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["client"],
        },
    )


class ModelCache(ApiModel):
    """A claim that keeps downloads and compiled kernels between pods."""

    claim_name: Name = Field(description="PersistentVolumeClaim, ReadWriteMany for several pods.")


class Autoscaling(ApiModel):
    """Replicas follow the waiting requests, by KEDA."""

    min_replicas: int = Field(
        default=1,
        description="Least replicas.",
        json_schema_extra=between(1, 1000, "autoscaling.minReplicas"),
    )
    max_replicas: int = Field(
        description="Most replicas.",
        json_schema_extra=between(1, 1000, "autoscaling.maxReplicas"),
    )
    waiting_requests: int = Field(
        default=5,
        description="Requests waiting per replica above which one more is started "
        "(vllm:num_requests_waiting).",
        json_schema_extra=between(1, 1000, "autoscaling.waitingRequests"),
    )

    cel_rules = (
        rule(
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be larger than autoscaling.maxReplicas",
        ),
    )


class AdapterDeploymentSpec(ApiModel):
    """Which base model is served, with which adapters."""

    base_model: ModelSource = Field(description="The base model that all adapters share.")
    served_model_name: str | None = Field(
        default=None,
        max_length=128,
        description=(
            "Name under which the base model answers. Default: the last part of its uri, for "
            "example Llama-3.1-8B-Instruct."
        ),
        json_schema_extra=rules(
            rule(
                f"self.matches('{SERVED_NAME}')",
                "servedModelName may hold letters, digits, '-', '_' and '.'",
            )
        ),
    )
    strategy: Strategy = Field(
        default=Strategy.ADAPTERS,
        description=(
            "Adapters: the base model and any number of adapters from one server; they come and go "
            "without a restart. Merged: the one adapter is merged into the weights, checked, and "
            "served alone: faster, and the only way for DoRA. Auto: Merged while there is one "
            "adapter, Adapters from two on; each change rolls the pods."
        ),
    )
    adapters: AdapterSelection = Field(
        default=AdapterSelection(), description="Which adapters are served."
    )
    replicas: int = Field(
        default=1,
        description="Number of vLLM pods; kubectl scale changes it.",
        json_schema_extra=between(0, 1000, "replicas"),
    )
    base_replicas: int = Field(
        default=0,
        description="Pods for requests of the base model alone. A batch that holds one request of "
        "an adapter is slower for all: with pods of its own the base model stays fast.",
        json_schema_extra=between(0, 1000, "baseReplicas"),
    )
    max_model_length: int | None = Field(
        default=None,
        description="Longest prompt plus answer in tokens. Default: what the model supports.",
        json_schema_extra=rules(
            rule("self >= 16", "maxModelLength must be at least 16 tokens"),
        ),
    )
    server: Server = Field(default=Server(), description="vLLM's own settings.")
    access: Access | None = Field(
        default=None, description="Who may ask. Default: everyone who reaches the Service."
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Needs KEDA. Default: replicas stay as set."
    )
    model_cache: ModelCache | None = Field(
        default=None, description="Default: each pod downloads and compiles for itself."
    )
    resources: Resources = Field(default=Resources(), description="What each vLLM pod asks for.")
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="Image, node selection and environment of the pods."
    )

    cel_rules = (
        rule(
            "self.baseModel == oldSelf.baseModel",
            "baseModel of an AdapterDeployment cannot be changed, because its adapters fit only "
            "that model: create another AdapterDeployment",
        ),
        rule(
            "self.strategy != 'Merged' || self.baseReplicas == 0",
            "baseReplicas must be 0 with strategy Merged: no base model is served then",
        ),
    )


class VersionState(StrEnum):
    """What one version of an adapter is for."""

    #: Answers under the name.
    PROMOTED = "Promoted"
    #: Answers a part of the requests to the name.
    CANARY = "Canary"
    #: Newer than the promoted one, and not on all replicas yet.
    JOINING = "Joining"
    #: Superseded, and still to be asked as name@version.
    STANDBY = "Standby"
    #: Was a canary and had too many errors.
    ROLLED_BACK = "RolledBack"


class ServedAdapter(ApiModel):
    """One version of an adapter, and how many replicas were seen to answer with it."""

    name: str = Field(max_length=63, description="Name to put into a request's model field.")
    version: str = Field(
        default="",
        max_length=12,
        description="Begins the digest; name@version always means this one.",
    )
    state: VersionState = Field(default=VersionState.PROMOTED, description="What it is for.")
    weight: int = Field(
        default=100, description="Percent of the requests to the name that it answers."
    )
    digest: Digest = Field(description="sha256 over the adapter's files.")
    uri: Uri = Field(description="Where it lies.")
    job: str | None = Field(
        default=None, max_length=253, description="The FineTuneJob that made it."
    )
    gate: GateRule = Field(default=GateRule.PASSED, description="None: nobody judged it.")
    evaluated_by: str | None = Field(
        default=None, max_length=253, description="The EvalRun whose verdict lets it be served."
    )
    replicas_ready: int = Field(
        default=0,
        description="Replicas that hold exactly these files, and whose answers with them were seen "
        "to differ from the base model's.",
    )
    replicas_wanted: int = Field(default=0, description="Replicas that should.")
    last_error: str | None = Field(
        default=None, max_length=512, description="Why a replica does not serve it."
    )
    since: Timestamp | None = Field(default=None, description="When it came into this state.")


class RejectedAdapter(ApiModel):
    """A selected adapter that is not served, and why."""

    name: str = Field(max_length=253, description="Name of the FineTuneJob or of the adapter.")
    reason: str = Field(max_length=128, description="One word for why.")
    message: str = Field(max_length=1024, description="Why, and what would change it.")


class ServingState(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    MERGING = "Merging"
    STARTING = "Starting"
    UPDATING = "Updating"
    WAITING = "Waiting"
    DEGRADED = "Degraded"
    READY = "Ready"
    SCALED_TO_ZERO = "ScaledToZero"


class ServerStatus(ApiModel):
    """What vLLM was told."""

    strategy: Strategy = Field(description="Adapters or Merged.")
    strategy_reason: str = Field(max_length=512, description="Why.")
    max_loras: int | None = Field(default=None, description="Adapters in one batch.")
    max_lora_rank: int | None = Field(default=None, description="Highest rank.")
    max_cpu_loras: int | None = Field(default=None, description="Adapters kept in memory.")


class AdapterDeploymentStatus(ApiModel):
    """What has been observed."""

    observed_generation: int | None = Field(
        default=None, description="The generation of the spec that this status is about."
    )
    state: ServingState | None = Field(default=None, description="One word for people.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready: every replica was seen to answer with every adapter.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    endpoint: str | None = Field(
        default=None, max_length=512, description="OpenAI-compatible address inside the cluster."
    )
    base_model_name: str | None = Field(
        default=None, max_length=253, description="Name under which the base model answers."
    )
    replicas: int | None = Field(default=None, description="vLLM pods that exist.")
    ready_replicas: int | None = Field(default=None, description="vLLM pods that answer.")
    base_ready_replicas: int | None = Field(
        default=None, description="Pods of the base model alone that answer."
    )
    selector: str | None = Field(
        default=None, max_length=512, description="Label selector of the pods, for autoscalers."
    )
    autoscaled: bool | None = Field(
        default=None, description="Whether KEDA was told to set the replicas."
    )
    server: ServerStatus | None = Field(default=None, description="What vLLM was told.")
    adapter_count: int | None = Field(default=None, description="Number of names served.")
    adapters: list[ServedAdapter] = Field(
        default_factory=list,
        max_length=2000,
        description="The versions that are served, or on their way.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "version"],
        },
    )
    not_served: list[RejectedAdapter] = Field(
        default_factory=list,
        max_length=100,
        description="Selected adapters that are not served, and why; at most 100.",
    )


class AdapterDeployment(ApiModel):
    """Serves a base model and all adapters of it that passed their evaluation."""

    metadata: ObjectMeta
    spec: AdapterDeploymentSpec = Field(description="What is served.")
    status: AdapterDeploymentStatus = Field(
        default=AdapterDeploymentStatus(),
        description="What has been observed. Written by the operator.",
    )

    cel_rules = (
        rule(
            f"self.metadata.name.size() <= {MAXIMUM_NAME_LENGTH} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name becomes the name of a Service: use at most "
            f"{MAXIMUM_NAME_LENGTH} lower-case letters, digits and '-', beginning with a letter",
        ),
    )

    @classmethod
    def from_object(cls, raw: dict[str, Any]) -> AdapterDeployment:
        """Parse the object as the API server returned it. Raises pydantic.ValidationError."""
        return cls.model_validate(raw)
