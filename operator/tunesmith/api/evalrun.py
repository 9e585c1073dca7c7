"""EvalRun: a base model and an adapter measured on the same items, and a verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from tunesmith.api.locations import CONFIG_MAP_PATTERN, PVC_FOLDER_PATTERN, PVC_PATTERN
from tunesmith.api.objects import (
    NO_PARENT,
    ONE_GPU,
    AttemptStatus,
    Condition,
    DatasetFormat,
    Digest,
    ModelSource,
    ObjectMeta,
    PodTemplate,
    Resources,
    Timestamp,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

MAXIMUM_NAME_LENGTH = 52
DIGEST_RULE = rule(
    "self.matches('^sha256:[0-9a-f]{64}$')",
    "a digest must be sha256: and 64 hexadecimal digits, as status.artifact.digest shows it",
)


class Metric(StrEnum):
    """The closed list of metrics. All are reported in points from 0 to 100."""

    AUTO = "Auto"
    EXACT_MATCH = "ExactMatch"
    ACCURACY = "Accuracy"
    TOKEN_F1 = "TokenF1"
    JSON_FIELD_F1 = "JsonFieldF1"


class Verdict(StrEnum):
    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


class AdapterSource(ApiModel):
    """An adapter in PEFT's format, named by what it contains."""

    uri: Uri = Field(
        description="Folder of the adapter: pvc://CLAIM/FOLDER.",
        json_schema_extra=rules(
            rule(f"self.matches('{PVC_PATTERN}')", "adapter.uri must be pvc://CLAIM/FOLDER"),
            NO_PARENT,
        ),
    )
    digest: Digest = Field(
        description="sha256 over the adapter's files. The run fails if the folder holds another.",
        json_schema_extra=rules(DIGEST_RULE),
    )


class EvaluationDataset(ApiModel):
    """Questions with their expected answers, as JSON Lines."""

    uri: Uri = Field(
        description="Where the file is: pvc://CLAIM/PATH or configmap://NAME/KEY.",
        json_schema_extra=rules(
            rule(
                f"self.matches('{PVC_PATTERN}') || self.matches('{CONFIG_MAP_PATTERN}')",
                "a suite's dataset.uri must be pvc://CLAIM/PATH or configmap://NAME/KEY",
            ),
            NO_PARENT,
        ),
    )
    format: DatasetFormat = Field(
        default=DatasetFormat.AUTO, description="Messages, Alpaca, or Auto to tell by the rows."
    )
    digest: Digest | None = Field(
        default=None,
        description="sha256 of the rows. The run fails if the file holds other rows.",
        json_schema_extra=rules(DIGEST_RULE),
    )


class Suite(ApiModel):
    """One set of questions and how the answers are scored."""

    name: str = Field(
        max_length=63,
        description="Name that a gate refers to.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "a suite's name may hold lower-case letters, digits and '-', as in held-out",
            )
        ),
    )
    dataset: EvaluationDataset = Field(description="The questions.")
    metric: Metric = Field(
        default=Metric.AUTO,
        description=(
            "How an answer is scored. Auto: JsonFieldF1 when every expected answer is a JSON "
            "object, Accuracy when there are at most 20 different answers, else TokenF1."
        ),
    )
    max_items: int = Field(
        default=500,
        description="At most this many questions are asked, in the order of the file.",
        json_schema_extra=between(2, 100000, "maxItems"),
    )
    max_new_tokens: int = Field(
        default=256,
        description="Longest answer in tokens.",
        json_schema_extra=between(1, 8192, "maxNewTokens"),
    )


class Gate(ApiModel):
    """A bound on the difference between adapter and base."""

    suite: str = Field(max_length=63, description="Name of the suite that it judges.")
    minimum_difference: float = Field(
        default=0,
        description=(
            "In points, adapter minus base. Passed when the whole 95% confidence interval lies "
            "above it, Failed when none of it does, else Inconclusive. Use a negative number to "
            "allow a drop: -3 passes an adapter that loses less than three points."
        ),
        json_schema_extra=between(-100, 100, "minimumDifference"),
    )


class EvalRunSpec(ApiModel):
    """What is compared, on which questions, and what must hold."""

    base_model: ModelSource = Field(description="The model without the adapter.")
    adapter: AdapterSource = Field(description="The adapter that is judged.")
    suites: list[Suite] = Field(
        min_length=1,
        max_length=8,
        description="The sets of questions; both sides answer all of them.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    gates: list[Gate] = Field(
        min_length=1,
        max_length=16,
        description="What must hold for the verdict Passed. The worst gate decides.",
    )
    output_uri: Uri | None = Field(
        default=None,
        description="Folder for the answers of both sides, item by item: pvc://CLAIM[/FOLDER].",
        json_schema_extra=rules(
            rule(
                f"self.matches('{PVC_FOLDER_PATTERN}')",
                "outputUri must be pvc://CLAIM or pvc://CLAIM/FOLDER",
            ),
            NO_PARENT,
        ),
    )
    resources: Resources = Field(default=Resources(), description="What the pod asks for.")
    backoff_limit: int = Field(
        default=3,
        description="How many further attempts follow one that failed through infrastructure.",
        json_schema_extra=between(0, 100, "backoffLimit"),
    )
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="Image, node selection and environment of the pod."
    )

    cel_rules = (
        ONE_GPU,
        rule(
            "self == oldSelf",
            "the spec of an EvalRun cannot be changed, so that its verdict always says what it is "
            "about: apply a run with a new name",
        ),
        rule(
            "self.gates.all(gate, self.suites.exists(suite, suite.name == gate.suite))",
            "every gates[].suite must be the name of one of the suites",
        ),
    )


class EvaluationPhase(StrEnum):
    STARTING = "Starting"
    LOADING = "Loading"
    BASE = "Base"
    ADAPTER = "Adapter"
    SCORING = "Scoring"
    DONE = "Done"


class EvaluationProgress(ApiModel):
    """How far the evaluation is."""

    phase: EvaluationPhase = Field(description="Which side is being asked.")
    items_done: int | None = Field(default=None, description="Answers so far, of both sides.")
    items_total: int | None = Field(default=None, description="Answers in all, of both sides.")
    percent: int | None = Field(default=None, description="Answers so far, in percent.")


class ConfidenceInterval(ApiModel):
    """A 95% confidence interval, in points."""

    lower: float = Field(description="Lower end.")
    upper: float = Field(description="Upper end.")


class SuiteResult(ApiModel):
    """What one suite measured."""

    suite: str = Field(max_length=63, description="Name of the suite.")
    metric: Metric = Field(description="How the answers were scored.")
    items: int = Field(description="Questions that both sides answered.")
    base: float = Field(description="Mean score of the base model, 0-100.")
    adapter: float = Field(description="Mean score with the adapter, 0-100.")
    difference: float = Field(description="Adapter minus base, in points.")
    confidence_interval: ConfidenceInterval = Field(
        description="95% interval of the difference: paired bootstrap over the items."
    )
    dataset_digest: Digest = Field(description="sha256 of the rows that were asked.")


class GateResult(ApiModel):
    """What one gate says."""

    suite: str = Field(max_length=63, description="Name of the suite.")
    minimum_difference: float = Field(description="The bound, in points.")
    verdict: Verdict = Field(description="Whether it holds.")


class EvalState(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    WAITING = "Waiting"
    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


class EvalRunStatus(AttemptStatus):
    """What has been observed."""

    state: EvalState | None = Field(default=None, description="One word for people.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Succeeded: there is a verdict. Passed: every gate holds.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    verdict: Verdict | None = Field(default=None, description="The worst gate's verdict.")
    adapter_digest: Digest | None = Field(
        default=None, description="The adapter that the verdict is about."
    )
    base_model_digest: Digest | None = Field(
        default=None, description="The base model that the verdict is about."
    )
    results: list[SuiteResult] = Field(
        default_factory=list, max_length=8, description="What each suite measured."
    )
    gates: list[GateResult] = Field(
        default_factory=list, max_length=16, description="What each gate says."
    )
    progress: EvaluationProgress | None = Field(default=None, description="How far it is.")
    completion_time: Timestamp | None = Field(default=None, description="When the verdict fell.")


class EvalRun(ApiModel):
    """Compares a base model with and without an adapter on the same items, and gives a verdict."""

    metadata: ObjectMeta
    spec: EvalRunSpec = Field(description="What is compared, and what must hold.")
    status: EvalRunStatus = Field(
        default=EvalRunStatus(), description="What has been observed. Written by the operator."
    )

    cel_rules = (
        rule(
            f"self.metadata.name.size() <= {MAXIMUM_NAME_LENGTH} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"metadata.name of an EvalRun: use at most {MAXIMUM_NAME_LENGTH} lower-case letters, "
            "digits and '-', beginning with a letter",
        ),
    )

    @classmethod
    def from_object(cls, raw: dict[str, Any]) -> EvalRun:
        """Parse the object as the API server returned it. Raises pydantic.ValidationError."""
        return cls.model_validate(raw)
