"""What is observed about an AdapterDeployment, replica by replica."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.adapter_selection import GateRule
from tunesmith.api.objects import Condition, Digest, Timestamp, Uri
from tunesmith.api.schema import ApiModel

#: Versions that a status, and a ConfigMap, have room for.
MOST_VERSIONS = 2000


class Strategy(StrEnum):
    """How adapters meet the base model."""

    ADAPTERS = "Adapters"
    MERGED = "Merged"
    AUTO = "Auto"


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
        max_length=MOST_VERSIONS,
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
