"""What a plan for a FineTuneJob is made from, and what is decided before its status is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_evaluation import Adjustment, JobEvaluation
from tunesmith.api.job_status import Artifact, JobState, Preparation, Progress
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.trainer_contract import ProgressReport, Reason
from tunesmith.finetunejob import adjustments
from tunesmith.kube.attempts import Attempt, AttemptState, Start
from tunesmith.kube.conditions import Finding

Object = dict[str, Any]


class JobStage(StrEnum):
    """Which part of the work a batch Job does; a label of it."""

    PREPARE = "prepare"
    TRAIN = "train"


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    #: With what the policies of its namespace give it.
    job: FineTuneJob
    #: The latest attempt of training, and every batch Job of it, raw.
    attempt: Attempt | None = None
    jobs: list[Object] = field(default_factory=list)
    progress: ProgressReport | None = None
    eval_runs: list[EvalRun] = field(default_factory=list)
    #: A ConfigMap that the preparation should read, when it does not exist.
    missing_config_map: str | None = None
    #: The latest attempt of preparation, and every batch Job of it, raw.
    preparation: Attempt | None = None
    preparation_jobs: list[Object] = field(default_factory=list)
    #: The pods of all these Jobs.
    pods: list[Object] = field(default_factory=list)

    def eval_run(self, name: str) -> EvalRun | None:
        return next((each for each in self.eval_runs if each.metadata.name == name), None)

    @property
    def prepared_before(self) -> Preparation:
        """What status says about the preparation."""
        return self.job.status.preparation or Preparation()

    @property
    def trains(self) -> bool:
        """Whether an attempt of training is under way, or has succeeded."""
        return self.attempt is not None and self.attempt.state is not AttemptState.FAILED


@dataclass(frozen=True)
class Prepared:
    """What the preparation left: the data, and how training it fits into memory."""

    uri: str
    dataset: DatasetReceipt
    memory: MemoryPlan
    warnings: list[str] = field(default_factory=list)
    #: Commit of the base model that it was made for, if that is of the hub.
    base_model_revision: str | None = None


@dataclass(frozen=True)
class Results:
    """What preparation and training gave so far."""

    prepared: Prepared | None
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
    #: An attempt to create now, of training or of preparation.
    start: Start | None = None
    prepare: Start | None = None
    #: The changes with which ``start`` trains, the older ones included.
    adjustments: list[Adjustment] = field(default_factory=list)
    requeue_after: timedelta | None = None
    evaluation: JobEvaluation | None = None
    eval_run: Object | None = None


def results(observed: Observed) -> Results:
    """From the latest attempts while they are there, else from what status keeps.

    What status keeps of an earlier attempt says nothing about a newer one, although the newer one
    may not be in status yet: its Job is made first.
    """
    status, attempt, report = observed.job.status, observed.attempt, observed.progress
    remembered = status.attempt or 0
    ready = prepared(observed)
    dataset = (
        (report.dataset if report else None) or (ready.dataset if ready else None) or status.dataset
    )
    training = report.training if report else None
    if attempt is None:
        progress = training or status.progress
        return Results(ready, status.artifact, dataset, progress, status.adjustments)
    changes = adjustments.of_attempt(observed.jobs, attempt, status.adjustments)
    outcome = attempt.message.training if attempt.message else None
    if outcome:
        return Results(ready, outcome.artifact, outcome.dataset, outcome.progress, changes)
    if attempt.number > remembered:
        return Results(ready, None, dataset, training, changes)
    return Results(ready, status.artifact, dataset, training or status.progress, changes)


def prepared(observed: Observed) -> Prepared | None:
    """The prepared data, unless it was never made or training found it changed."""
    attempt, status, before = observed.preparation, observed.job.status, observed.prepared_before
    if is_spoilt(observed):
        return None
    outcome = attempt.message.preparation if attempt and attempt.message else None
    if outcome:
        return Prepared(
            outcome.uri,
            outcome.dataset,
            outcome.memory,
            outcome.warnings,
            outcome.base_model_revision,
        )
    is_newer = attempt is not None and attempt.number > (before.attempt or 0)
    if is_newer or before.uri is None or status.dataset is None or status.plan is None:
        return None
    return Prepared(
        before.uri, status.dataset, status.plan, before.warnings, before.base_model_revision
    )


def is_spoilt(observed: Observed) -> bool:
    """Whether training found other files than were prepared, and nothing was prepared since."""
    failure = observed.attempt.failure if observed.attempt else None
    if failure is None or failure.reason != Reason.PREPARED_DATA_CHANGED:
        return False
    return observed.preparation is None or observed.preparation.since < failure.finished_at


def has_begun(observed: Observed) -> bool:
    """Whether an attempt of training was ever made."""
    return observed.attempt is not None or bool(observed.job.status.attempt)
