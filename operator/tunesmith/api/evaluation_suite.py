"""What an evaluation asks, how it scores the answers, and what must hold: suites and gates."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from tunesmith.api.locations import (
    CONFIG_MAP_PATTERN,
    HTTPS_PATTERN,
    HUB_DATASET_PATTERN,
    PVC_PATTERN,
    S3_PATTERN,
    any_of,
)
from tunesmith.api.objects import (
    DIGEST_RULE,
    HTTPS_DIGEST_RULE,
    NO_PARENT,
    SECRET_DESCRIPTION,
    SECRET_RULE,
    Digest,
    HeldOut,
    SecretReference,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

FILE_RULE = rule(
    any_of(PVC_PATTERN, CONFIG_MAP_PATTERN),
    "must be pvc://CLAIM/PATH or configmap://NAME/KEY",
)


class Metric(StrEnum):
    """The closed list of metrics. All but Rating are reported in points from 0 to 100."""

    AUTO = "Auto"
    EXACT_MATCH = "ExactMatch"
    ACCURACY = "Accuracy"
    MACRO_F1 = "MacroF1"
    TOKEN_F1 = "TokenF1"
    JSON_FIELD_F1 = "JsonFieldF1"
    ROUGE_L = "RougeL"
    BLEU = "Bleu"
    #: A judge's rating from 1 to 10. MT-Bench has it; a dataset cannot ask for it.
    RATING = "Rating"


class QuestionFormat(StrEnum):
    """How the rows of an evaluation's dataset are written."""

    AUTO = "Auto"
    MESSAGES = "Messages"
    SHARE_GPT = "ShareGPT"
    ALPACA = "Alpaca"
    PROMPT_COMPLETION = "PromptCompletion"
    MULTIPLE_CHOICE = "MultipleChoice"


class EvaluationDataset(ApiModel):
    """Questions with their expected answers, in the files that a FineTuneJob reads, too."""

    uri: Uri = Field(
        description=(
            "Where the file is: pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/PATH, "
            "hf://datasets/ORGANISATION/NAME[@REVISION]/PATH, or https://HOST/PATH with a digest."
        ),
        json_schema_extra=rules(
            rule(
                any_of(
                    PVC_PATTERN, CONFIG_MAP_PATTERN, HUB_DATASET_PATTERN, S3_PATTERN, HTTPS_PATTERN
                ),
                "a suite's dataset.uri must be pvc://CLAIM/PATH, configmap://NAME/KEY, "
                "s3://BUCKET/PATH, hf://datasets/ORGANISATION/NAME[@REVISION]/PATH or "
                "https://HOST/PATH without user and query",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(default=None, description=SECRET_DESCRIPTION)
    format: QuestionFormat = Field(
        default=QuestionFormat.AUTO,
        description=(
            "Messages, ShareGPT, Alpaca or PromptCompletion, as a FineTuneJob reads them, or "
            "MultipleChoice: {question, choices: [...], answer: 0 or A, "
            "subject}. Auto tells by the first row. Multiple-choice questions are scored by which "
            "letter is most likely; rows of one subject count as a cluster."
        ),
    )
    digest: Digest | None = Field(
        default=None,
        description=(
            "sha256 of the rows; for https://, which needs it, of the file. The run fails if the "
            "file holds other rows."
        ),
        json_schema_extra=rules(DIGEST_RULE),
    )
    held_out: HeldOut | None = Field(
        default=None,
        description=(
            "Ask only the rows that a FineTuneJob with this setting holds out of the file. Unset: "
            "ask every row."
        ),
    )

    cel_rules = (
        SECRET_RULE,
        HTTPS_DIGEST_RULE,
        rule(
            "!has(self.heldOut) || !has(self.format) || self.format != 'MultipleChoice'",
            "heldOut is only used with conversations, as training has them: remove it, or the "
            "format MultipleChoice",
        ),
    )


class PromptExamples(ApiModel):
    """Rows that nobody is judged by."""

    uri: Uri = Field(
        description="Where the file is: pvc://CLAIM/PATH, configmap://NAME/KEY or s3://BUCKET/PATH.",
        json_schema_extra=rules(
            rule(
                any_of(PVC_PATTERN, CONFIG_MAP_PATTERN, S3_PATTERN),
                "promptedBase.examples.uri must be pvc://CLAIM/PATH, configmap://NAME/KEY or "
                "s3://BUCKET/PATH",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(default=None, description=SECRET_DESCRIPTION)
    digest: Digest | None = Field(
        default=None,
        description="sha256 of the rows. The run fails if the file holds other rows.",
        json_schema_extra=rules(DIGEST_RULE),
    )

    cel_rules = (SECRET_RULE,)


class PromptedBase(ApiModel):
    """The base model with the best system prompt: what an adapter must beat to be worth it.

    The prompt is chosen on rows that are never asked, among the question as it is, the prompts
    named here, and each of them with solved examples.
    """

    examples: PromptExamples | None = Field(
        default=None,
        description=(
            "Rows of the training side, to choose the prompt on and to take solved examples from. "
            "Unset: the rows that dataset.heldOut leaves."
        ),
    )
    system_prompts: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="System prompts to try besides those that Tunesmith makes from examples.",
        json_schema_extra={"items": {"type": "string", "minLength": 1, "maxLength": 8192}},
    )


class BenchmarkSize(StrEnum):
    FULL = "Full"
    FAST = "Fast"


class Benchmark(ApiModel):
    """A task, or a group of tasks, of lm-evaluation-harness."""

    name: str = Field(
        default="mmlu",
        max_length=128,
        description=(
            "Name of the task or group, such as mmlu. Tasks that run code or have no score for "
            "each item are refused."
        ),
        json_schema_extra=rules(
            rule(
                "self.matches('^[A-Za-z0-9][-._A-Za-z0-9]*$')",
                "benchmark.name must be the name of a task or group of lm-evaluation-harness, such "
                "as mmlu",
            )
        ),
    )
    shots: int | None = Field(
        default=None,
        description="Solved examples before each question. Unset: 5 for mmlu, else the task's own.",
        json_schema_extra=between(0, 64, "benchmark.shots"),
    )
    size: BenchmarkSize = Field(
        default=BenchmarkSize.FULL,
        description=(
            "Full, or Fast: 50 items of each subject, drawn with a fixed seed. Fast is marked as "
            "approximate: it seldom decides about three points."
        ),
    )
    data: Uri | None = Field(
        default=None,
        description=(
            "Folder that `tunesmith-trainer fetch-tasks` filled: pvc://CLAIM/PATH. Unset: the "
            "Hugging Face Hub."
        ),
        json_schema_extra=rules(
            rule(f"self.matches('{PVC_PATTERN}')", "benchmark.data must be pvc://CLAIM/PATH"),
            NO_PARENT,
        ),
    )


class Judge(ApiModel):
    """A model behind an OpenAI-compatible endpoint that rates answers."""

    url: str = Field(
        max_length=1024,
        description="Root of the API, such as https://judge.example.com/v1.",
        json_schema_extra=rules(
            rule(
                "self.matches('^https?://[^ ]+$')",
                "judge.url must begin with http:// or https://, such as "
                "https://judge.example.com/v1",
            )
        ),
    )
    model: str = Field(
        min_length=1,
        max_length=256,
        description="Name of the judge. Pin a version: another judge, another verdict.",
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret whose key JUDGE_API_KEY opens the endpoint. It is handed to the pod as an "
            "environment variable; the operator never reads it."
        ),
    )
    max_tokens: int = Field(
        default=2048,
        description=(
            "Longest answer of the judge in tokens, its thoughts included. With question and "
            "answers it has to fit into the judge's context."
        ),
        json_schema_extra=between(64, 131072, "judge.maxTokens"),
    )


class MtBench(ApiModel):
    """Two-turn conversations that a judge rates from 1 to 10 (MT-Bench, arXiv:2306.05685)."""

    questions: Uri = Field(
        description=(
            "File of the questions, one JSON object per line: {question_id, category, turns: "
            "[first, second], reference: [...]}. pvc://CLAIM/PATH or configmap://NAME/KEY."
        ),
        json_schema_extra=rules(
            rule(FILE_RULE["rule"], f"mtBench.questions {FILE_RULE['message']}"), NO_PARENT
        ),
    )
    judge: Judge = Field(description="Who rates the answers. Both sides have the same judge.")
    pairwise: bool = Field(
        default=True,
        description=(
            "Also show the judge both answers side by side, in both orders, as a cross-check. It "
            "does not enter the verdict."
        ),
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
    dataset: EvaluationDataset | None = Field(default=None, description="Questions of one's own.")
    benchmark: Benchmark | None = Field(
        default=None, description="A task or group of lm-evaluation-harness."
    )
    mt_bench: MtBench | None = Field(
        default=None, description="Two-turn conversations that a judge rates."
    )
    metric: Metric = Field(
        default=Metric.AUTO,
        description=(
            "How an answer is scored, for a dataset. Auto: JsonFieldF1 when every expected answer "
            "is a JSON object, Accuracy when there are at most 20 different answers or choices "
            "are given, else TokenF1."
        ),
    )
    prompted_base: PromptedBase | None = Field(
        default=None,
        description=(
            "Compare with the base model under its best system prompt, for a dataset. Unset: the "
            "base model is asked exactly what the adapter is asked."
        ),
    )
    max_items: int = Field(
        default=500,
        description=(
            "At most this many questions of a dataset are asked, in the order of the file; a gate "
            "with onInconclusive: Extend may ask for more."
        ),
        json_schema_extra=between(2, 100000, "maxItems"),
    )
    max_new_tokens: int = Field(
        default=256,
        description="Longest answer in tokens.",
        json_schema_extra=between(1, 8192, "maxNewTokens"),
    )

    cel_rules = (
        rule(
            "(has(self.dataset) ? 1 : 0) + (has(self.benchmark) ? 1 : 0) + "
            "(has(self.mtBench) ? 1 : 0) == 1",
            "a suite must have exactly one of dataset, benchmark and mtBench",
        ),
        rule(
            "has(self.dataset) || !has(self.metric) || self.metric == 'Auto'",
            "metric is only used with dataset: a benchmark and MT-Bench have their own; remove it",
        ),
        rule(
            "!has(self.metric) || self.metric != 'Rating'",
            "metric Rating is what MT-Bench has: use mtBench, or another metric",
        ),
        rule(
            "!has(self.promptedBase) || has(self.dataset)",
            "promptedBase is only used with dataset: remove it",
        ),
        rule(
            "!has(self.promptedBase) || has(self.promptedBase.examples) || "
            "!has(self.dataset) || has(self.dataset.heldOut)",
            "promptedBase needs rows that are not asked: set promptedBase.examples, or "
            "dataset.heldOut",
        ),
    )


class OnInconclusive(StrEnum):
    """What a doubt becomes."""

    FAIL = "Fail"
    PASS = "Pass"
    EXTEND = "Extend"


class Gate(ApiModel):
    """A bound on the difference between adapter and base."""

    suite: str = Field(max_length=63, description="Name of the suite that it judges.")
    minimum_difference: float = Field(
        default=0,
        description=(
            "In points, adapter minus base. Passed when the whole confidence interval lies above "
            "it, Failed when none of it does, else Inconclusive. Use a negative number to allow a "
            "drop: -3 passes an adapter that loses less than three points."
        ),
        json_schema_extra=between(-100, 100, "minimumDifference"),
    )
    on_inconclusive: OnInconclusive | None = Field(
        default=None,
        description=(
            "What a doubt becomes: Fail, Pass, or Extend: ask more of the suite's items until it "
            "is decided or all are asked. Unset: the verdict Inconclusive, which is not served."
        ),
    )


#: What a gate asks for when nobody says so. A drop of more than three points in general knowledge
#: is forgetting; MT-Bench may fall by 0.3 of its ten points; at its own task an adapter must gain.
DEFAULT_BENCHMARK_DIFFERENCE = -3.0
DEFAULT_MT_BENCH_DIFFERENCE = -0.3
DEFAULT_TASK_DIFFERENCE = 0.0


def default_gate(suite: Suite) -> Gate:
    """The gate of a suite that no gate names."""
    if suite.benchmark:
        return Gate(suite=suite.name, minimum_difference=DEFAULT_BENCHMARK_DIFFERENCE)
    if suite.mt_bench:
        return Gate(suite=suite.name, minimum_difference=DEFAULT_MT_BENCH_DIFFERENCE)
    return Gate(suite=suite.name, minimum_difference=DEFAULT_TASK_DIFFERENCE)


def all_gates(suites: Sequence[Suite], named: Sequence[Gate]) -> list[Gate]:
    """The gates that somebody wrote, and the default one of every other suite."""
    covered = {gate.suite for gate in named}
    return [*named, *(default_gate(suite) for suite in suites if suite.name not in covered)]
