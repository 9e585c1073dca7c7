"""Objects as the API server would return them, for tests of the pure parts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import Asked, EvalRun, SuiteResult
from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import Artifact, ArtifactKind, Progress, TrainingPhase
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import (
    EvaluationOutcome,
    PreparationOutcome,
    Reason,
    ReportedFailure,
    TerminationMessage,
    TrainingOutcome,
)
from tunesmith.api.verdict import ConfidenceInterval
from tunesmith.kube.labels import PLAN
from tunesmith.settings import Settings

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings("trainer:1", "vllm:1", "operator:1", "tunesmith-system", identity="test")
DIGEST = "sha256:" + "a" * 64
BASE_DIGEST = "sha256:" + "b" * 64
BASE_URI = "pvc://models/smol"

Raw = dict[str, Any]


def moment(seconds: float) -> str:
    """A time stamp some seconds before NOW."""
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata(name: str, **extra: Any) -> Raw:
    return {
        "name": name,
        "namespace": "team",
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": moment(600),
        **extra,
    }


def finetunejob(
    name: str = "triage",
    status: Raw | None = None,
    labels: Raw | None = None,
    annotations: Raw | None = None,
    **spec: Any,
) -> FineTuneJob:
    return FineTuneJob.from_object(
        {
            "metadata": metadata(name, labels=labels or {}, annotations=annotations or {}),
            "spec": {
                "baseModel": {"uri": BASE_URI},
                "dataset": {"uri": "pvc://data/tickets.jsonl"},
                "output": {"uri": "pvc://adapters/tuned"},
                **spec,
            },
            "status": status or {},
        }
    )


def evalrun(name: str = "triage-aaaaaaaa", status: Raw | None = None, **spec: Any) -> EvalRun:
    return EvalRun.from_object(
        {
            "metadata": metadata(name),
            "spec": {
                "baseModel": {"uri": BASE_URI},
                "adapter": {"uri": "pvc://adapters/tuned/x", "digest": DIGEST},
                "suites": [{"name": "held-out", "dataset": {"uri": "pvc://adapters/h.jsonl"}}],
                "gates": [{"suite": "held-out"}],
                **spec,
            },
            "status": status or {},
        }
    )


def adapterdeployment(name: str = "serving", **spec: Any) -> AdapterDeployment:
    return AdapterDeployment.from_object(
        {
            "metadata": metadata(name),
            "spec": {"baseModel": {"uri": BASE_URI}, "resources": {"gpus": 0}, **spec},
        }
    )


def memory_plan(**changes: Any) -> MemoryPlan:
    fields = {
        "method": "LoRA",
        "micro_batch_size": 4,
        "gradient_accumulation": 2,
        "activation_checkpointing": "Off",
        "optimizer": "AdamW",
        "predicted_peak_bytes": 40 << 30,
        **changes,
    }
    return MemoryPlan(**fields)


PREPARED_URI = "pvc://adapters/tuned/team/triage/uid-triage/prepared/0123456789abcdef"


def prepared(**more: Any) -> Raw:
    """The status of a job whose data is ready."""
    return {
        "preparation": {"attempt": 1, "countedFailures": 0, "uri": PREPARED_URI},
        "dataset": receipt().to_json(),
        "plan": memory_plan().to_json(),
        **more,
    }


def outcome(**changes: Any) -> TerminationMessage:
    """The last word of a preparation."""
    fields = {
        "uri": PREPARED_URI,
        "dataset": receipt(),
        "memory": memory_plan(),
        **changes,
    }
    return TerminationMessage(preparation=PreparationOutcome(**fields))


def batch_job(
    number: int = 1,
    *,
    finished: str | None = None,
    counted: int = 0,
    stage: str = "train",
    spec: Raw | None = None,
    annotations: Raw | None = None,
    labels: Raw | None = None,
) -> Raw:
    """The batch Job of an attempt; ``finished`` is Complete or Failed."""
    conditions = []
    if finished:
        conditions.append(
            {"type": finished, "status": "True", "reason": "", "lastTransitionTime": moment(5)}
        )
    return {
        "metadata": metadata(
            f"triage-{stage}-{number}",
            labels={"tunesmith.dev/attempt": str(number), **(labels or {})},
            annotations={"tunesmith.dev/counted-failures": str(counted), **(annotations or {})},
        ),
        "spec": spec or {},
        "status": {"conditions": conditions},
    }


def pod(
    number: int = 1,
    phase: str = "Running",
    *,
    waiting: Raw | None = None,
    terminated: Raw | None = None,
    unschedulable: str | None = None,
    stage: str = "train",
    index: int | None = None,
    **status: Any,
) -> Raw:
    state: Raw = {"running": {"startedAt": moment(300)}} if phase == "Running" else {}
    if waiting:
        state = {"waiting": waiting}
    if terminated:
        times = {"startedAt": moment(300), "finishedAt": moment(60)}
        state = {"terminated": {**times, **terminated}}
    conditions = [{"type": "Ready", "status": "True" if phase == "Running" else "False"}]
    if unschedulable:
        conditions.append({"type": "PodScheduled", "status": "False", "message": unschedulable})
        state = {}
    name = f"triage-{stage}-{number}"
    indexed = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
    return {
        "metadata": metadata(
            f"{name}-{index or 0}",
            labels={"batch.kubernetes.io/controller-uid": f"uid-{name}"},
            annotations=indexed,
        ),
        "spec": {"containers": [{"name": "main", "image": "trainer:1"}]},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": conditions,
            "containerStatuses": [{"name": "main", "state": state}] if state else [],
            **status,
        },
    }


def artifact(kind: ArtifactKind = ArtifactKind.ADAPTER) -> Artifact:
    return Artifact(
        kind=kind,
        uri="pvc://adapters/tuned/team/triage/uid-triage/abc",
        digest=DIGEST,
        base_model_digest=BASE_DIGEST,
        rank=16,
    )


def receipt(**changes: Any) -> DatasetReceipt:
    fields = {
        "digest": DIGEST,
        "rows": 1200,
        "held_out_rows": 120,
        "held_out_digest": BASE_DIGEST,
        "duplicate_rows": 0,
        "train_rows": 1080,
        **changes,
    }
    return DatasetReceipt(**fields)


def trained() -> TerminationMessage:
    return TerminationMessage(
        training=TrainingOutcome(
            artifact=artifact(),
            dataset=receipt(),
            progress=Progress(phase=TrainingPhase.DONE, step=10, total_steps=10, percent=100),
        )
    )


def measured(lower: float = 10, upper: float = 30, **changes: Any) -> EvaluationOutcome:
    return EvaluationOutcome(
        digest=DIGEST,
        base_model_digest=BASE_DIGEST,
        chat_template_digest=BASE_DIGEST,
        results=[
            SuiteResult(
                suite="held-out",
                metric=Metric.TOKEN_F1,
                items=100,
                base=40,
                adapter=60,
                difference=20,
                confidence_interval=ConfidenceInterval(lower=lower, upper=upper),
                detectable=12.5,
                asked=Asked(data=BASE_DIGEST, prompts=BASE_DIGEST),
            ).model_copy(update=changes)
        ],
    )


def failed(
    failure_class: FailureClass = FailureClass.USER_ERROR,
    reason: Reason = Reason.DATASET_EMPTY,
    message: str = "The dataset is empty.",
) -> TerminationMessage:
    return TerminationMessage(
        failure=ReportedFailure(failure_class=failure_class, reason=reason, message=message)
    )


def ended(message: TerminationMessage, exit_code: int, number: int = 1, **more: Any) -> Raw:
    """A pod whose container ended with this last word."""
    return pod(
        number,
        "Failed" if exit_code else "Succeeded",
        terminated={"exitCode": exit_code, "message": message.to_line()},
        **more,
    )


def plan_of(job: Raw) -> Raw:
    """What the pods of a trainer Job are told to do."""
    return dict(json.loads(job["spec"]["template"]["metadata"]["annotations"][PLAN]))
