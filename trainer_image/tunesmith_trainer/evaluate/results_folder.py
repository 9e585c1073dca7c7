"""The folder that an evaluation leaves: report.html for people, the rest for machines.

results.json holds the digest of every file of items, and its own digest stands in status: whoever
has the status can tell whether anything was changed. The same answers give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith.api.digests import file_digest
from tunesmith.api.evalrun import Report, SuiteResult
from tunesmith.api.schema import ApiModel
from tunesmith.api.trainer_contract import EvaluationOutcome, EvaluationPlan, PlannedSource

from tunesmith_trainer.evaluate.measured import Answer, Measured
from tunesmith_trainer.evaluate.report import page
from tunesmith_trainer.evaluate.report.suite_report import Item, Subject, SuiteReport
from tunesmith_trainer.output import place_of, staged

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


class TriedPrompt(ApiModel):
    """A system prompt and its mean score on rows that are not asked."""

    prompt: str
    score: float


class ItemsFile(ApiModel):
    name: str
    digest: str


class SuiteRecord(SuiteResult):
    """What status says of a suite, and what has no room there."""

    #: What the gates ask of the difference.
    bounds: list[float]
    #: All of them, those that fell most first.
    subjects: list[Subject]
    best_prompt: str | None
    tried_prompts: list[TriedPrompt]
    items_file: ItemsFile


class Results(ApiModel):
    """The content of results.json."""

    owner: str
    date: str | None
    base_model_uri: str
    base_model_digest: str
    adapter_uri: str | None
    merged_model_uri: str | None
    #: Of the adapter or merged model.
    digest: str | None
    chat_template_digest: str
    suites: list[SuiteRecord]


def write_results(
    target: PlannedSource,
    plan: EvaluationPlan,
    outcome: EvaluationOutcome,
    measured: Sequence[Measured],
    *,
    date: str | None = None,
) -> Report:
    """Write everything that is known, whole or not at all, and say where it lies.

    ``target`` is this run's own: what it held before is gone. ``measured`` has the suites of
    ``outcome.results`` in the same order. Raises TrainerError if the folder cannot be written.
    """
    suites = [
        SuiteReport(each, result, bounds_of(plan, result.suite))
        for each, result in zip(measured, outcome.results, strict=True)
    ]
    with staged(*place_of(target)) as staging:
        records = []
        for suite in suites:
            path = staging / suite.items_file
            write_items(path, suite.items)
            records.append(suite_record(suite, f"sha256:{file_digest(path)}"))
        results_file = staging / RESULTS_FILE
        results_file.write_text(as_json(results(plan, outcome, records, date)), encoding="utf-8")
        (staging / REPORT_FILE).write_text(
            page.render(plan, outcome, suites, date), encoding="utf-8"
        )
        digest = f"sha256:{file_digest(results_file)}"
    return Report(uri=target.uri, digest=digest)


def bounds_of(plan: EvaluationPlan, suite: str) -> tuple[float, ...]:
    """What the gates ask of a suite's difference."""
    gates = [gate for each in plan.suites if each.suite.name == suite for gate in each.gates]
    return tuple(sorted({gate.minimum_difference for gate in gates}))


def write_items(path: Path, items: Sequence[Item]) -> None:
    """One line for each item, in the order in which they were asked."""
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            row = {
                "prompt": item.question.prompt,
                "expected": item.question.expected,
                "group": item.question.group,
                **{side.value: as_row(answer) for side, answer in item.answers.items()},
            }
            file.write(json.dumps(row, allow_nan=False) + "\n")


def as_row(answer: Answer) -> dict[str, str | float | None]:
    # float: numpy's do not go into JSON.
    return {
        "answer": answer.text,
        "score": None if answer.score is None else float(answer.score),
    }


def suite_record(suite: SuiteReport, items_digest: str) -> SuiteRecord:
    return SuiteRecord(
        **suite.result.model_dump(),
        bounds=list(suite.bounds),
        subjects=suite.subjects,
        best_prompt=suite.measured.best_prompt,
        tried_prompts=[
            TriedPrompt(prompt=prompt, score=score)
            for prompt, score in suite.measured.tried_prompts
        ],
        items_file=ItemsFile(name=suite.items_file, digest=items_digest),
    )


def results(
    plan: EvaluationPlan,
    outcome: EvaluationOutcome,
    suites: list[SuiteRecord],
    date: str | None,
) -> Results:
    return Results(
        owner=plan.owner,
        date=date,
        base_model_uri=plan.base_model.uri,
        base_model_digest=outcome.base_model_digest,
        adapter_uri=plan.adapter.uri if plan.adapter else None,
        merged_model_uri=plan.merged_model.uri if plan.merged_model else None,
        digest=outcome.digest,
        chat_template_digest=outcome.chat_template_digest,
        suites=suites,
    )


def as_json(results: Results) -> str:
    return json.dumps(results.to_json(), indent=2, allow_nan=False) + "\n"
