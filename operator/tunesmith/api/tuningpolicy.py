"""TuningPolicy: what a platform team allows in its tenants' namespaces, and what they get there."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tunesmith.api.method import Method
from tunesmith.api.objects import Labels, Name, Toleration
from tunesmith.api.output import OutputStore
from tunesmith.api.schema import ApiModel, between, rule, rules

#: Bounds that keep what the API server compares, and the sentence that says it, short.
MAXIMUM_PATTERNS = 32
MAXIMUM_PATTERN_LENGTH = 128

Pattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAXIMUM_PATTERN_LENGTH,
        json_schema_extra=rules(
            rule(
                "self.matches('^[^*]*[*]?$')",
                "a pattern is the whole text, or its beginning and one '*' at the end, for example "
                "hf://meta-llama/*",
            )
        ),
    ),
]
Patterns = Annotated[list[Pattern], Field(max_length=MAXIMUM_PATTERNS)]

HOW_PATTERNS_READ = (
    "Each is the whole text, or its beginning and a '*'; FOLDER/* is the folder and all in it. "
    "Unset: all. Empty: none."
)


class PolicyNamespaces(ApiModel):
    """Chooses namespaces by their labels."""

    match_labels: Labels = Field(
        description=(
            "Labels that a namespace must carry. Every namespace has kubernetes.io/metadata.name, "
            "its name."
        )
    )


class Allowed(ApiModel):
    """What may be asked for. A part that is unset allows all."""

    base_models: Patterns | None = Field(
        default=None,
        description=(
            "Uris of base models that may be tuned, measured and served; hf://ORGANISATION/* is "
            f"all of an organisation. {HOW_PATTERNS_READ}"
        ),
    )
    datasets: Patterns | None = Field(
        default=None,
        description=(
            "Uris of data: to train on, to stay apart from, and to be asked about. "
            f"{HOW_PATTERNS_READ}"
        ),
    )
    adapters: Patterns | None = Field(
        default=None,
        description=(
            "Uris of adapters and merged models that may be named: measured or served without "
            f"the FineTuneJob that made them. {HOW_PATTERNS_READ}"
        ),
    )
    destinations: Patterns | None = Field(
        default=None,
        description=(
            "Where adapters, reports, loss curves and questions to a judge may go: uris of "
            "outputs, oci://REGISTRY/REPOSITORY:TAG, addresses of servers. "
            f"{HOW_PATTERNS_READ}"
        ),
    )
    images: Patterns | None = Field(
        default=None,
        description=(
            "Images that podTemplate.image may name; the platform's own need not be named. "
            f"{HOW_PATTERNS_READ}"
        ),
    )
    env: Patterns | None = Field(
        default=None,
        description=(
            "Environment variables that podTemplate.env may set, by name: HF_ENDPOINT, say, makes "
            f"another place of every hf:// uri. {HOW_PATTERNS_READ}"
        ),
    )
    methods: list[Method] | None = Field(
        default=None,
        max_length=len(Method),
        description=(
            "Methods that a FineTuneJob may use; Auto needs LoRA and QLoRA, of which it chooses. "
            "Unset: all."
        ),
    )
    max_gpus: int | None = Field(
        default=None,
        description=(
            "Most GPUs of one FineTuneJob (resources.gpus times resources.nodes), one EvalRun, or "
            "one pod of an AdapterDeployment. How many there are at a time is for a ResourceQuota "
            "or Kueue."
        ),
        json_schema_extra=between(0, 1024, "allowed.maxGpus"),
    )
    max_hours: float | None = Field(
        default=None,
        description=(
            "Longest time in hours that one attempt of a FineTuneJob or EvalRun may run. It is the "
            "deadline of every attempt that has no shorter one of its own."
        ),
        json_schema_extra=between(0.001, 8760, "allowed.maxHours"),
    )


class PolicyDefaults(ApiModel):
    """What objects get that do not say it themselves. It is used, and never written into them."""

    node_selector: Labels = Field(
        default_factory=dict, description="For podTemplate.nodeSelector: the node pool."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, max_length=16, description="For podTemplate.tolerations."
    )
    queue: Name | None = Field(
        default=None,
        description=(
            "LocalQueue of Kueue in which training and evaluation wait, as the label "
            "kueue.x-k8s.io/queue-name on the object would say."
        ),
    )
    output: OutputStore | None = Field(
        default=None,
        description="For output of a FineTuneJob; the Secret is one of the job's namespace.",
    )
    trainer_image: str | None = Field(
        default=None,
        max_length=512,
        description="For podTemplate.image of FineTuneJobs and EvalRuns.",
    )
    serving_image: str | None = Field(
        default=None, max_length=512, description="For podTemplate.image of AdapterDeployments."
    )


class TuningPolicySpec(ApiModel):
    """Where the policy holds, what it allows, and what it gives."""

    namespaces: PolicyNamespaces | None = Field(
        default=None, description="Where it holds. Unset: in every namespace."
    )
    allowed: Allowed = Field(
        default=Allowed(),
        description=(
            "What may be asked for. Where several policies hold, all of them must allow it."
        ),
    )
    defaults: PolicyDefaults = Field(
        default=PolicyDefaults(),
        description=(
            "What objects get that do not say it themselves. Where several policies give the same, "
            "the first by name does."
        ),
    )


class PolicyMeta(ApiModel):
    """The part of Kubernetes' metadata that is read of a policy."""

    name: str


class TuningPolicy(ApiModel):
    """What a platform team allows in its tenants' namespaces, and what they get by default."""

    metadata: PolicyMeta
    spec: TuningPolicySpec = Field(description="Where it holds, what it allows, what it gives.")

    @classmethod
    def from_object(cls, raw: dict[str, Any]) -> TuningPolicy:
        """Parse the object as the API server returned it. Raises pydantic.ValidationError."""
        return cls.model_validate(raw)
