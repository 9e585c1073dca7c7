"""AdapterDeployment: every ready adapter of one base model, served by vLLM."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tunesmith.api.adapter_selection import AdapterSelection
from tunesmith.api.locations import HUB_MODEL_PATTERN, PVC_PATTERN, any_of
from tunesmith.api.objects import (
    NO_PARENT,
    SERVED_NAME,
    Name,
    ObjectMeta,
    PodTemplate,
    Resources,
    SecretReference,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules
from tunesmith.api.serving_status import AdapterDeploymentStatus, Strategy

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
#: Ways of loading weights that never open a pickle, which can carry programs.
LOAD_FORMATS = ("safetensors", "fastsafetensors", "runai_streamer", "mistral", "dummy")


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
            ),
            rule(
                f"!('load-format' in self) || self['load-format'] in {list(LOAD_FORMATS)}",
                f"load-format must be one of {', '.join(LOAD_FORMATS)}: others read pickles, which "
                "can carry programs",
            ),
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


class ServedModel(ApiModel):
    """A base model in Hugging Face format that vLLM can open by itself."""

    uri: Uri = Field(
        description=(
            "Where the model is: hf://ORGANISATION/NAME[@REVISION] on the Hugging Face Hub, or "
            "pvc://CLAIM/FOLDER on a PersistentVolumeClaim of this namespace."
        ),
        json_schema_extra=rules(
            rule(
                any_of(HUB_MODEL_PATTERN, PVC_PATTERN),
                "a served base model's uri must be hf://ORGANISATION/NAME[@REVISION] or "
                "pvc://CLAIM/FOLDER, for example hf://meta-llama/Llama-3.1-8B-Instruct",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret whose key HF_TOKEN opens a gated repository. It is handed to the pod as an "
            "environment variable; the operator never reads it."
        ),
    )

    cel_rules = (
        rule(
            "!has(self.secretRef) || self.uri.startsWith('hf://')",
            "secretRef is only used for hf:// models: remove it, or use an hf:// uri",
        ),
    )


class AdapterDeploymentSpec(ApiModel):
    """Which base model is served, with which adapters."""

    base_model: ServedModel = Field(description="The base model that all adapters share.")
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
