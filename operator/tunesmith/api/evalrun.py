"""EvalRun: a base model and an adapter measured on the same items, and a verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from tunesmith.api.evaluation_suite import Gate, Metric, Suite
from tunesmith.api.locations import (
    PVC_FOLDER_PATTERN,
    PVC_PATTERN,
    S3_FOLDER_PATTERN,
    S3_PATTERN,
    any_of,
)
from tunesmith.api.objects import (
    DIGEST_RULE,
    NO_PARENT,
    ONE_GPU,
    SECRET_DESCRIPTION,
    SECRET_RULE,
    AttemptStatus,
    Condition,
    Digest,
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
from tunesmith.api.verdict import ConfidenceInterval, Verdict

MAXIMUM_NAME_LENGTH = 52
#: Their results have to fit into a termination message.
MAXIMUM_SUITES = 6
#: Those that somebody writes, and the default one of every suite.
MAXIMUM_GATES = 16


class AdapterSource(ApiModel):
    """An adapter in PEFT's format: of a FineTuneJob, or named by what it contains."""

    job: Name | None = Field(
        default=None,
        description="FineTuneJob of this namespace. The run waits until it has trained.",
    )
    uri: Uri | None = Field(
        default=None,
        description="Folder of the adapter: pvc://CLAIM/FOLDER or s3://BUCKET/FOLDER.",
        json_schema_extra=rules(
            rule(
                any_of(PVC_PATTERN, S3_PATTERN),
                "adapter.uri must be pvc://CLAIM/FOLDER or s3://BUCKET/FOLDER",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret that opens the bucket, as for other sources. Of an adapter named by its job, "
            "the job's output.secretRef is used."
        ),
    )
    digest: Digest | None = Field(
        default=None,
        description="sha256 over the adapter's files. The run fails if the folder holds another.",
        json_schema_extra=rules(DIGEST_RULE),
    )

    cel_rules = (
        rule(
            "has(self.job) ? !has(self.uri) && !has(self.digest) : "
            "has(self.uri) && has(self.digest)",
            "adapter needs either job, the name of a FineTuneJob, or uri and digest",
        ),
        rule(
            "!has(self.secretRef) || (has(self.uri) && self.uri.startsWith('s3://'))",
            "adapter.secretRef is only used with an s3:// uri: remove it",
        ),
    )


class MergedModelSource(ApiModel):
    """A base model with an adapter merged into its weights."""

    uri: Uri = Field(
        description="Folder of the model: pvc://CLAIM/FOLDER or s3://BUCKET/FOLDER.",
        json_schema_extra=rules(
            rule(
                any_of(PVC_PATTERN, S3_PATTERN),
                "mergedModel.uri must be pvc://CLAIM/FOLDER or s3://BUCKET/FOLDER",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(default=None, description=SECRET_DESCRIPTION)
    digest: Digest = Field(
        description="sha256 over the model's files. The run fails if the folder holds another.",
        json_schema_extra=rules(DIGEST_RULE),
    )

    cel_rules = (SECRET_RULE,)


class EvalRunSpec(ApiModel):
    """What is compared, on which questions, and what must hold."""

    base_model: ModelSource = Field(description="The model without the adapter.")
    adapter: AdapterSource | None = Field(
        default=None,
        description="The adapter that is judged. Without adapter and mergedModel the "
        "base model alone is measured, and there is no verdict.",
    )
    merged_model: MergedModelSource | None = Field(
        default=None, description="The merged model that is judged, instead of an adapter."
    )
    suites: list[Suite] = Field(
        min_length=1,
        max_length=MAXIMUM_SUITES,
        description="The sets of questions; both sides answer all of them.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    gates: list[Gate] = Field(
        default_factory=list,
        max_length=MAXIMUM_GATES - MAXIMUM_SUITES,
        description=(
            "What must hold for the verdict Passed; the worst gate decides. A suite that no gate "
            "names has a default one: a dataset must gain, a benchmark may lose 3 points, MT-Bench "
            "0.3."
        ),
    )
    output_uri: Uri | None = Field(
        default=None,
        max_length=400,
        description=(
            "Folder for the report and the answers of both sides, item by item: "
            "pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER]."
        ),
        json_schema_extra=rules(
            rule(
                any_of(PVC_FOLDER_PATTERN, S3_FOLDER_PATTERN),
                "outputUri must be pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER]",
            ),
            NO_PARENT,
        ),
    )
    base_results_uri: Uri | None = Field(
        default=None,
        description=(
            "Folder in which the base model's answers are kept, so that the next adapter of the "
            "same base does not ask for them again: pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER]."
        ),
        json_schema_extra=rules(
            rule(
                any_of(PVC_FOLDER_PATTERN, S3_FOLDER_PATTERN),
                "baseResultsUri must be pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER]",
            ),
            NO_PARENT,
        ),
    )
    output_secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret that opens the buckets of outputUri and baseResultsUri, with the keys that "
            "s3:// sources have."
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
            "self.suites.filter(suite, has(suite.mtBench)).size() <= 1",
            "at most one of the suites may have mtBench: one run has one judge",
        ),
        rule(
            "!has(self.outputSecretRef) || "
            "(has(self.outputUri) && self.outputUri.startsWith('s3://')) || "
            "(has(self.baseResultsUri) && self.baseResultsUri.startsWith('s3://'))",
            "outputSecretRef is only used with an s3:// outputUri or baseResultsUri: remove it",
        ),
        rule(
            "self == oldSelf",
            "the spec of an EvalRun cannot be changed, so that its verdict always says what it is "
            "about: apply a run with a new name",
        ),
        rule(
            "!(has(self.adapter) && has(self.mergedModel))",
            "name adapter or mergedModel, not both: one thing is judged in one run",
        ),
        rule(
            "has(self.adapter) || has(self.mergedModel) || !has(self.gates) || "
            "self.gates.size() == 0",
            "gates compare something with the base model: name adapter or mergedModel, or remove "
            "gates to measure the base model alone",
        ),
        rule(
            "!has(self.gates) || self.gates.all(gate, self.suites.exists(suite, suite.name == "
            "gate.suite))",
            "every gates[].suite must be the name of one of the suites",
        ),
    )


class EvaluationPhase(StrEnum):
    STARTING = "Starting"
    LOADING = "Loading"
    BASE = "Base"
    ADAPTER = "Adapter"
    PROMPTED_BASE = "PromptedBase"
    JUDGING = "Judging"
    SCORING = "Scoring"
    DONE = "Done"


class EvaluationProgress(ApiModel):
    """How far the evaluation is."""

    phase: EvaluationPhase = Field(description="Which side is being asked.")
    items_done: int | None = Field(default=None, description="Answers so far, of both sides.")
    items_total: int | None = Field(default=None, description="Answers in all, of both sides.")
    percent: int | None = Field(default=None, description="Answers so far, in percent.")


class GroupDifference(ApiModel):
    """One subject of a suite."""

    name: str = Field(max_length=128, description="Name of the subject.")
    items: int = Field(description="Questions of the subject.")
    difference: float = Field(description="Adapter minus base, in points.")


class Asked(ApiModel):
    """What exactly was asked: a verdict holds for this and nothing else."""

    data: Digest = Field(description="sha256 of the rows that were asked.")
    prompts: Digest = Field(
        description=(
            "sha256 of the prompts as the model saw them, with template, solved examples and "
            "bounds of the answer."
        )
    )
    task: str | None = Field(
        default=None, max_length=256, description="Benchmark, its version, and the library's."
    )
    judge: str | None = Field(
        default=None, max_length=512, description="Judge and digest of what it is told."
    )


class SuiteResult(ApiModel):
    """What one suite measured."""

    suite: str = Field(max_length=63, description="Name of the suite.")
    metric: Metric = Field(description="How the answers were scored.")
    items: int = Field(description="Questions that both sides answered.")
    base: float = Field(description="Mean score of the base model, 0-100; a rating is 1-10.")
    prompted_base: float | None = Field(
        default=None, description="Mean score of the base model under its best system prompt."
    )
    adapter: float | None = Field(
        default=None, description="Mean score with the adapter, or of the merged model."
    )
    difference: float | None = Field(
        default=None, description="Adapter minus the better side of the base model, in points."
    )
    confidence_interval: ConfidenceInterval | None = Field(
        default=None, description="Interval of the difference; items are paired."
    )
    confidence: float = Field(
        default=95.0,
        description=(
            "Confidence of the interval in percent. Above 95 where more items could be asked for: "
            "every look at the figures has its share of the error."
        ),
    )
    detectable: float | None = Field(
        default=None,
        description="Smallest true difference that so many items show in four of five cases.",
    )
    approximate: bool = Field(
        default=False, description="Whether only a sample of the benchmark was asked."
    )
    failed_percent: float | None = Field(
        default=None, description="Ratings that the judge failed to give, in percent."
    )
    win_percent: float | None = Field(
        default=None,
        description=(
            "Pairs in which the judge preferred the adapter in both orders, ties counted half."
        ),
    )
    fallen: list[GroupDifference] = Field(
        default_factory=list, max_length=3, description="The subjects that fell most."
    )
    asked: Asked | None = Field(default=None, description="What exactly was asked.")


class GateResult(ApiModel):
    """What one gate says."""

    suite: str = Field(max_length=63, description="Name of the suite.")
    minimum_difference: float = Field(description="The bound, in points.")
    verdict: Verdict = Field(description="Whether it holds.")


class Report(ApiModel):
    """The whole result, for people and for machines."""

    uri: Uri = Field(description="Folder with report.html, results.json and a file for each suite.")
    digest: Digest = Field(description="sha256 of results.json.")


class EvalState(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    WAITING = "Waiting"
    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    MEASURED = "Measured"
    ERROR = "Error"


#: States that nothing follows by itself.
FINISHED = frozenset(
    {
        EvalState.PASSED,
        EvalState.FAILED,
        EvalState.INCONCLUSIVE,
        EvalState.MEASURED,
        EvalState.ERROR,
    }
)


class EvalRunStatus(AttemptStatus):
    """What has been observed."""

    state: EvalState | None = Field(default=None, description="One word for people.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Succeeded: all was measured. Passed: every gate holds.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    verdict: Verdict | None = Field(default=None, description="The worst gate's verdict.")
    adapter_digest: Digest | None = Field(
        default=None, description="The adapter or merged model that the verdict is about."
    )
    base_model_digest: Digest | None = Field(
        default=None, description="The base model that the verdict is about."
    )
    chat_template_digest: Digest | None = Field(
        default=None, description="The chat template that both sides were asked with."
    )
    report: Report | None = Field(default=None, description="Where the whole result lies.")
    results: list[SuiteResult] = Field(
        default_factory=list, max_length=MAXIMUM_SUITES, description="What each suite measured."
    )
    gates: list[GateResult] = Field(
        default_factory=list, max_length=MAXIMUM_GATES, description="What each gate says."
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
