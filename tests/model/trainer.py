"""What a trainer's pod says when it ends. It reads its plan, as the real one does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import Enum

from pydantic import ValidationError
from tunesmith.api.evalrun import SuiteResult
from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.job_status import Artifact, Progress, TrainingPhase
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import (
    PLAN_READER,
    AnyPlan,
    EvaluationOutcome,
    EvaluationPlan,
    ExitCode,
    MergeOutcome,
    MergePlan,
    PreparationOutcome,
    PreparationPlan,
    Reason,
    RemovalOutcome,
    RemovalPlan,
    ReportedFailure,
    TerminationMessage,
    TrainingOutcome,
    TrainingPlan,
    plan_digest,
)
from tunesmith.api.verdict import ConfidenceInterval, Verdict

from tests.model.api_server import Object, View
from tests.model.truth import Truth
from tests.unit.operator import given


@dataclass(frozen=True)
class Fault:
    """How a container fails, and whether that counts towards backoffLimit."""

    exit_code: int
    failure_class: FailureClass | None = None
    reason: Reason = Reason.INTERNAL
    #: What the kubelet says, when the trainer had no time to.
    kubelet: str = "Error"
    counts: bool = False

    def words(self) -> str:
        if self.failure_class is None:
            return "Traceback: something broke" if self.kubelet == "Error" else ""
        failure = ReportedFailure(
            failure_class=self.failure_class, reason=self.reason, message="It failed."
        )
        return TerminationMessage(failure=failure).to_line()


class Ending(Enum):
    """How the main container of a trainer's pod may end, but for success."""

    USER_ERROR = Fault(ExitCode.USER_ERROR, FailureClass.USER_ERROR, Reason.DATASET_EMPTY)
    DATA_UNREACHABLE = Fault(
        ExitCode.DATA_UNREACHABLE, FailureClass.DATA_UNREACHABLE, Reason.SOURCE_UNREACHABLE
    )
    OUT_OF_MEMORY = Fault(
        ExitCode.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY, counts=True
    )
    OOM_KILLED = Fault(137, kubelet="OOMKilled", counts=True)
    CRASHED = Fault(ExitCode.INTERNAL, counts=True)
    TOLD_TO_STOP = Fault(ExitCode.PREEMPTED, FailureClass.PREEMPTED, Reason.PREEMPTED)
    KILLED = Fault(143)
    NEVER_WORKS = Fault(ExitCode.USER_ERROR, FailureClass.USER_ERROR, Reason.LOSS_NOT_FINITE)
    DATA_CHANGED = Fault(ExitCode.USER_ERROR, FailureClass.USER_ERROR, Reason.PREPARED_DATA_CHANGED)


INTERVALS = {
    Verdict.PASSED: ConfidenceInterval(lower=10, upper=30),
    Verdict.INCONCLUSIVE: ConfidenceInterval(lower=-5, upper=30),
    Verdict.FAILED: ConfidenceInterval(lower=-30, upper=-10),
}
#: A model that can do the task half: fine-tuning pays off.
IN_BAND, BELOW_BAND = 75.0, 40.0


@dataclass(frozen=True)
class Success:
    """How a pod succeeds: what an evaluation finds, and how well the base model does."""

    verdict: Verdict = Verdict.PASSED
    base: float = IN_BAND


def plan_of(view: View, pod: Object) -> AnyPlan | None:
    """What the pod is to do, wherever that is written; None while it is not there."""
    metadata = pod["metadata"]
    names = [each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each]
    found = [view.get("ConfigMap", name) or {} for name in names]
    texts = [text for each in found for text in each.get("data", {}).values()]
    for text in [*metadata.get("annotations", {}).values(), *texts]:
        try:
            return PLAN_READER.validate_json(text)
        except ValidationError:
            continue
    return None


def succeed(plan: AnyPlan, owner: str, how: Success, truth: Truth) -> TerminationMessage:
    """The last word of a pod that did what its plan says, and a note of it."""
    match plan:
        case PreparationPlan():
            data = digest(owner, "data", truth.changes[owner])
            truth.prepared[owner].add(data)
            receipt = given.receipt(digest=data, held_out_digest=digest(data, "held out"))
            uri = f"{plan.output.uri}/prepared/{data[7:23]}"
            prepared = PreparationOutcome(uri=uri, dataset=receipt, memory=given.memory_plan())
            return TerminationMessage(preparation=prepared)
        case TrainingPlan():
            trained = _trained(plan)
            truth.trained[owner][trained.artifact.digest] = trained
            return TerminationMessage(training=trained)
        case EvaluationPlan():
            if plan.digest:
                truth.verdicts[plan.digest].add(how.verdict)
            return TerminationMessage(evaluation=_measured(plan, how))
        case MergePlan():
            merged = MergeOutcome(
                uri=plan.output.uri,
                adapter_digest=plan.adapter_digest,
                base_model_digest=given.BASE_DIGEST,
                digest=digest(plan.adapter_digest, "merged"),
                largest_difference=0,
                tolerance=1,
            )
            return TerminationMessage(merge=merged)
        case RemovalPlan():
            return TerminationMessage(removal=RemovalOutcome(uri=plan.adapter.uri))


def digest(*parts: object) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"


def _trained(plan: TrainingPlan) -> TrainingOutcome:
    """Equal plans, equal adapters. The losses rise again: a retry would take fewer epochs."""
    made = plan_digest(plan.model_copy(update={"rendezvous": None}))
    return TrainingOutcome(
        artifact=Artifact(
            uri=f"{plan.output.uri}/{made[7:23]}",
            digest=made,
            base_model_digest=given.BASE_DIGEST,
            rank=16,
        ),
        dataset=plan.dataset,
        progress=Progress(phase=TrainingPhase.DONE, percent=100, eval_losses=[2.0, 1.0, 1.5]),
    )


def _measured(plan: EvaluationPlan, how: Success) -> EvaluationOutcome:
    interval = INTERVALS[how.verdict] if plan.digest else None
    difference = (interval.lower + interval.upper) / 2 if interval else None
    return EvaluationOutcome(
        digest=plan.digest,
        base_model_digest=given.BASE_DIGEST,
        chat_template_digest=given.BASE_DIGEST,
        results=[
            SuiteResult(
                suite=each.suite.name,
                metric=Metric.TOKEN_F1,
                items=100,
                base=how.base,
                adapter=how.base + difference if difference is not None else None,
                difference=difference,
                confidence_interval=interval,
            )
            for each in plan.suites
        ],
    )
