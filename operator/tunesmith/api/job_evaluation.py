"""How the adapter of a FineTuneJob must prove itself, and what came of it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.evalrun import MAXIMUM_SUITES
from tunesmith.api.evaluation_suite import Gate, Metric, OnInconclusive, Suite
from tunesmith.api.objects import Digest
from tunesmith.api.schema import ApiModel, between, rule
from tunesmith.api.verdict import ConfidenceInterval, Verdict

HELD_OUT_SUITE = "held-out"
#: What one EvalRun can hold, less the held-out suite and the one that the platform may add.
MAXIMUM_FURTHER_SUITES = MAXIMUM_SUITES - 2


class Preflight(StrEnum):
    """What is asked of the base model before anything is trained."""

    SKIP = "Skip"
    ADVISE = "Advise"
    REQUIRE = "Require"


class OnFailure(StrEnum):
    """What follows on an adapter that failed."""

    RECOMMEND = "Recommend"
    RETRY = "Retry"


class Evaluation(ApiModel):
    """How the adapter must prove itself before it is served."""

    metric: Metric = Field(
        default=Metric.AUTO,
        description=(
            "Metric on the held-out examples. Auto: JsonFieldF1 when every answer is a JSON "
            "object, Accuracy when there are at most 20 different answers, else TokenF1."
        ),
    )
    minimum_difference: float = Field(
        default=0,
        description=(
            "Points (0-100) by which the adapter must beat the prompted base model on the "
            "held-out examples: the lower end of the confidence interval must lie above this."
        ),
        json_schema_extra=between(-100, 100, "evaluation.minimumDifference"),
    )
    max_items: int = Field(
        default=500,
        description=(
            "At most this many held-out examples are asked, in the order of the split; "
            "onInconclusive: Extend may ask for more."
        ),
        json_schema_extra=between(2, 100000, "evaluation.maxItems"),
    )
    max_new_tokens: int = Field(
        default=256,
        description="Longest answer in tokens.",
        json_schema_extra=between(1, 8192, "evaluation.maxNewTokens"),
    )
    on_inconclusive: OnInconclusive | None = Field(
        default=None,
        description=(
            "What a doubt about the held-out examples becomes: Fail, Pass, or Extend: ask more of "
            "them until it is decided or all are asked. Unset: the verdict Inconclusive, which is "
            "not served."
        ),
    )
    prompted_base: bool = Field(
        default=True,
        description=(
            "Compare with the base model under its best system prompt: an adapter that a prompt "
            "can replace is not worth serving. false: the base model is asked exactly what the "
            "adapter is asked."
        ),
    )
    system_prompts: list[str] = Field(
        default_factory=list,
        max_length=8,
        description=(
            "System prompts to try with the base model, besides those that Tunesmith makes from "
            "examples. The best is chosen on rows that are never asked."
        ),
        json_schema_extra={"items": {"type": "string", "minLength": 1, "maxLength": 8192}},
    )
    suites: list[Suite] = Field(
        default_factory=list,
        max_length=MAXIMUM_FURTHER_SUITES,
        description=(
            "Further questions besides the held-out examples: a benchmark such as mmlu, MT-Bench, "
            "or a dataset of one's own. Both sides answer all of them."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    gates: list[Gate] = Field(
        default_factory=list,
        max_length=8,
        description=(
            "Bounds on the suites above. A suite without one has the usual: a dataset 0 points, a "
            "benchmark -3 points, MT-Bench -0.3. The worst gate decides."
        ),
    )
    preflight: Preflight = Field(
        default=Preflight.ADVISE,
        description=(
            "Ask the base model the held-out examples before anything is trained. Where it has 70 "
            "to 80 points, fine-tuning closes the gap; below, more data and better prompting come "
            "first; above, gains are marginal. Advise: say so in the condition Preflight and train "
            "all the same. Require: train only between 70 and 80. Skip: ask nothing."
        ),
    )
    on_failure: OnFailure = Field(
        default=OnFailure.RECOMMEND,
        description=(
            "What follows on a verdict Failed. Recommend: status.evaluation.recommendation says "
            "what to change. Retry: where the change is of training.learningRate or "
            "training.epochs, train again with it."
        ),
    )
    max_retries: int = Field(
        default=2,
        description=(
            "How often Retry trains again, each time with one change. Failures of infrastructure "
            "are counted by backoffLimit, not here."
        ),
        json_schema_extra=between(1, 5, "evaluation.maxRetries"),
    )

    cel_rules = (
        rule(
            "!has(self.metric) || self.metric != 'Rating'",
            "metric Rating is what MT-Bench has: add a suite with mtBench, or use another metric",
        ),
        rule(
            f"!has(self.suites) || self.suites.all(suite, suite.name != '{HELD_OUT_SUITE}')",
            f"evaluation.suites must not be named {HELD_OUT_SUITE}: that is the suite of the "
            "held-out examples, which is always there",
        ),
        rule(
            "!has(self.suites) || self.suites.filter(suite, has(suite.mtBench)).size() <= 1",
            "at most one of evaluation.suites may have mtBench: one run has one judge",
        ),
        rule(
            "!has(self.gates) || self.gates.all(gate, has(self.suites) && "
            "self.suites.exists(suite, suite.name == gate.suite))",
            "every evaluation.gates[].suite must be the name of one of evaluation.suites; the "
            "bound of the held-out examples is evaluation.minimumDifference",
        ),
        rule(
            "!has(self.systemPrompts) || self.systemPrompts.size() == 0 || "
            "!has(self.promptedBase) || self.promptedBase",
            "evaluation.systemPrompts are only used with promptedBase: true: remove them",
        ),
    )


class Tunable(StrEnum):
    """What a retry may change."""

    LEARNING_RATE = "training.learningRate"
    EPOCHS = "training.epochs"


class Action(StrEnum):
    """What to do about a verdict."""

    LOWER_LEARNING_RATE = "LowerLearningRate"
    RAISE_LEARNING_RATE = "RaiseLearningRate"
    FEWER_EPOCHS = "FewerEpochs"
    MORE_EPOCHS = "MoreEpochs"
    MIX_IN_GENERAL_DATA = "MixInGeneralData"
    REVIEW_DATA = "ReviewData"
    CLEAN_DATA = "CleanData"
    ADD_DATA = "AddData"
    HOLD_OUT_MORE = "HoldOutMore"
    ASK_MORE = "AskMore"
    SETTLE_DOUBT = "SettleDoubt"
    MEND_JUDGE = "MendJudge"


class Recommendation(ApiModel):
    """One change at a time, so that the next verdict says what it did."""

    action: Action = Field(description="What to do.")
    field: Tunable | None = Field(
        default=None, description="The field to change; unset when it is the data that must change."
    )
    before: float | None = Field(default=None, alias="from", description="Its value so far.")
    after: float | None = Field(default=None, alias="to", description="The value to try.")
    because: str = Field(max_length=512, description="What was measured that speaks for it.")


class Adjustment(ApiModel):
    """A change with which the job trained again."""

    field: Tunable = Field(description="The field that was changed.")
    before: float = Field(alias="from", description="Its value before.")
    after: float = Field(alias="to", description="Its value since.")
    because: str = Field(max_length=512, description="What was measured that spoke for it.")
    eval_run: str = Field(max_length=253, description="The EvalRun whose verdict led to it.")
    adapter_digest: Digest = Field(description="The adapter that had failed.")


class JobPreflight(ApiModel):
    """What the base model can do already."""

    name: str = Field(max_length=253, description="Name of the EvalRun.")
    metric: Metric = Field(description="How the answers were scored.")
    items: int = Field(description="Held-out examples that were asked.")
    base: float = Field(description="Score of the base model, 0-100.")
    prompted_base: float | None = Field(
        default=None, description="Its score under its best system prompt, 0-100."
    )


class GateVerdict(ApiModel):
    """What one gate said."""

    suite: str = Field(max_length=63, description="Name of the suite.")
    verdict: Verdict = Field(description="Whether its bound holds.")


class JobEvaluation(ApiModel):
    """The verdict of this job's EvalRun, and the figures of the held-out examples."""

    name: str = Field(max_length=253, description="Name of the EvalRun.")
    verdict: Verdict | None = Field(default=None, description="Its verdict.")
    adapter_digest: Digest | None = Field(
        default=None, description="The adapter that the verdict is about."
    )
    metric: Metric | None = Field(default=None, description="What was measured.")
    base: float | None = Field(default=None, description="Score of the base model, 0-100.")
    prompted_base: float | None = Field(
        default=None, description="Score of the base model under its best system prompt, 0-100."
    )
    adapter: float | None = Field(default=None, description="Score with the adapter, 0-100.")
    difference: float | None = Field(
        default=None, description="Adapter minus the better side of the base model, in points."
    )
    confidence_interval: ConfidenceInterval | None = Field(
        default=None, description="Interval of the difference."
    )
    gates: list[GateVerdict] = Field(
        default_factory=list, max_length=16, description="What each gate said."
    )
    recommendation: Recommendation | None = Field(
        default=None, description="What to change when it did not pass."
    )
