"""What a plan for a FineTuneJob is made from, and what is decided before its status is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import Artifact, FineTuneJob, JobState, Progress
from tunesmith.api.job_evaluation import Adjustment, JobEvaluation
from tunesmith.api.trainer_contract import ProgressReport
from tunesmith.finetunejob import adjustments
from tunesmith.kube.attempts import Attempt, Start
from tunesmith.kube.conditions import Finding

Object = dict[str, Any]


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    job: FineTuneJob
    attempt: Attempt | None = None
    #: Every batch Job of this FineTuneJob, raw.
    jobs: list[Object] = field(default_factory=list)
    progress: ProgressReport | None = None
    eval_runs: list[EvalRun] = field(default_factory=list)
    #: The ConfigMap that the dataset should be in, when it does not exist.
    missing_config_map: str | None = None

    def eval_run(self, name: str) -> EvalRun | None:
        return next((each for each in self.eval_runs if each.metadata.name == name), None)


@dataclass(frozen=True)
class Results:
    """What training gave so far."""

    artifact: Artifact | None
    dataset: DatasetReceipt | None
    progress: Progress | None
    #: With what changes it trains, or has trained.
    adjustments: list[Adjustment]


@dataclass(frozen=True)
class Decision:
    """A plan before its status is put together."""

    state: JobState
    succeeded: Finding
    ready: Finding
    stalled: Finding | None = None
    start: Start | None = None
    #: The changes with which ``start`` trains, the older ones included.
    adjustments: list[Adjustment] = field(default_factory=list)
    requeue_after: timedelta | None = None
    evaluation: JobEvaluation | None = None
    eval_run: Object | None = None


def results(observed: Observed) -> Results:
    """From the latest attempt while it is there, else from what status keeps.

    What status keeps of an earlier attempt says nothing about a newer one, although the newer one
    may not be in status yet: its Job is made first.
    """
    status, attempt, report = observed.job.status, observed.attempt, observed.progress
    remembered = status.attempt or 0
    dataset = (report.dataset if report else None) or status.dataset
    training = report.training if report else None
    if attempt is None or (attempt.number < remembered and status.artifact):
        return Results(status.artifact, dataset, training or status.progress, status.adjustments)
    changes = adjustments.of_attempt(observed.jobs, attempt)
    outcome = attempt.message.training if attempt.message else None
    if outcome:
        return Results(outcome.artifact, outcome.dataset, outcome.progress, changes)
    if attempt.number > remembered:
        return Results(None, dataset, training, changes)
    return Results(status.artifact, dataset, training or status.progress, changes)


def has_begun(observed: Observed) -> bool:
    """Whether an attempt of training was ever made."""
    return observed.attempt is not None or bool(observed.job.status.attempt)
