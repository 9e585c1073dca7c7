"""AdapterDeployment: every ready adapter of one base model, served by one vLLM Deployment."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from tunesmith.api.objects import (
    Condition,
    Digest,
    Labels,
    ModelSource,
    Name,
    ObjectMeta,
    PodTemplate,
    Resources,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

MAXIMUM_NAME_LENGTH = 45


class LabelSelector(ApiModel):
    """Chooses FineTuneJobs by their labels."""

    match_labels: Labels = Field(
        default_factory=dict,
        description="Labels that a FineTuneJob must carry. Empty chooses all of this namespace.",
    )


class AdapterSelection(ApiModel):
    """Which adapters are served."""

    selector: LabelSelector = Field(
        default=LabelSelector(),
        description=(
            "FineTuneJobs of the same base model whose adapters are served. An adapter joins when "
            "its job is Ready: trained, and passed for exactly that digest."
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
                "self.matches('^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$')",
                "servedModelName may hold letters, digits, '-', '_' and '.'",
            )
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
    max_model_length: int | None = Field(
        default=None,
        description="Longest prompt plus answer in tokens. Default: what the model supports.",
        json_schema_extra=rules(
            rule("self >= 16", "maxModelLength must be at least 16 tokens"),
        ),
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
    )


class ServedAdapter(ApiModel):
    """One adapter and how many replicas were seen to offer it."""

    name: Name = Field(description="Name to put into a request's model field.")
    digest: Digest = Field(description="sha256 over the adapter's files.")
    uri: Uri = Field(description="Where it lies.")
    evaluated_by: Name = Field(description="The EvalRun whose verdict lets it be served.")
    replicas_ready: int = Field(
        default=0, description="Replicas whose model list shows exactly this adapter."
    )


class RejectedAdapter(ApiModel):
    """A selected FineTuneJob whose adapter is not served, and why."""

    name: Name = Field(description="Name of the FineTuneJob.")
    reason: str = Field(max_length=128, description="One word for why.")
    message: str = Field(max_length=1024, description="Why, and what would change it.")


class ServingState(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    STARTING = "Starting"
    UPDATING = "Updating"
    WAITING = "Waiting"
    READY = "Ready"
    SCALED_TO_ZERO = "ScaledToZero"


class AdapterDeploymentStatus(ApiModel):
    """What has been observed."""

    observed_generation: int | None = Field(
        default=None, description="The generation of the spec that this status is about."
    )
    state: ServingState | None = Field(default=None, description="One word for people.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready: every replica was seen to offer every adapter.",
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
    selector: str | None = Field(
        default=None, max_length=512, description="Label selector of the pods, for autoscalers."
    )
    adapter_count: int | None = Field(default=None, description="Number of adapters served.")
    adapters: list[ServedAdapter] = Field(
        default_factory=list,
        max_length=1000,
        description="The adapters that are served.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    not_served: list[RejectedAdapter] = Field(
        default_factory=list,
        max_length=100,
        description="Selected jobs whose adapter is not served, and why; at most 100.",
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
