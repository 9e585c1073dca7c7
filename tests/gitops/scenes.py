"""Objects that come into every state that simulated nodes can bring about.

KWOK plays the kubelet of the nodes: nothing is computed, and the pods' annotations say how they
end. All else is real.
"""

from __future__ import annotations

from typing import Any

from tunesmith.api.trainer_contract import EvaluationOutcome

from examples.demo.kubectl import Object
from tests.unit.operator import given

SIMULATION = "simulation.tunesmith.dev"
NODES = {"type": "kwok"}
QUEUE = {"kueue.x-k8s.io/queue-name": "team-queue"}
CLAIMS = ("models", "data", "adapters")
BROKEN = {"exit-code": "1", "reason": "Error"}

PASSES = given.measured(10, 30)
FAILS = given.measured(-30, -10)
IN_DOUBT = given.measured(-10, 30)
KNOWS_IT_ALREADY = given.measured(base=95.0)


def on_gpus(judged: EvaluationOutcome | None, **endings: str) -> Object:
    """A template for pods on simulated nodes; each stage takes its own part of the last word.

    Without a judgement nothing is trained, either.
    """
    last_word = given.outcome()
    if judged:
        parts = {"training": given.trained().training, "evaluation": judged}
        last_word = last_word.model_copy(update=parts)
    told = {"message": last_word.to_line(), **endings}
    return {
        "nodeSelector": NODES,
        "tolerations": [{"key": "tunesmith.dev/simulated", "operator": "Exists"}],
        "annotations": {f"{SIMULATION}/{key}": value for key, value in told.items()},
    }


def finetunejob(
    name: str,
    judged: EvaluationOutcome | None = PASSES,
    endings: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Object:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "dataset": {"uri": "pvc://data/rows.jsonl"},
            "output": {"uri": "pvc://adapters"},
            "evaluation": {"preflight": "Skip"},
            "podTemplate": on_gpus(judged, **(endings or {})),
            **spec,
        },
    }


def evalrun(
    name: str,
    judged: EvaluationOutcome | None = PASSES,
    endings: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Object:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "EvalRun",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "suites": [{"name": "held-out", "dataset": {"uri": "pvc://data/held-out.jsonl"}}],
            "podTemplate": on_gpus(judged, **(endings or {})),
            **spec,
        },
    }


def adapterdeployment(name: str, **spec: Any) -> Object:
    template = {key: each for key, each in on_gpus(PASSES).items() if key != "annotations"}
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": name},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "resources": {"gpus": 1},
            "podTemplate": template,
            **spec,
        },
    }


def another_ones_job(name: str) -> Object:
    """A Job that is none of ours, and never runs."""
    container = {"name": "main", "image": "none-such"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "suspend": True,
            "template": {"spec": {"containers": [container], "restartPolicy": "Never"}},
        },
    }


def all_of_them() -> list[Object]:
    """One object for every ending, and for everything that holds one up."""
    review = {"uri": "pvc://data/rows.jsonl", "review": {"required": True}}
    nowhere = {"nodeSelector": {"type": "none-such"}}
    adapter = {"uri": "pvc://adapters/tuned/x", "digest": given.DIGEST}
    return [
        another_ones_job("finds-its-name-taken-prepare-1"),
        finetunejob("finds-its-name-taken"),
        finetunejob("passes", evaluation={"preflight": "Advise"}),
        finetunejob("fails", FAILS),
        finetunejob("in-doubt", IN_DOUBT),
        finetunejob("needless", KNOWS_IT_ALREADY, evaluation={"preflight": "Require"}),
        finetunejob("crashes", None, endings={**BROKEN, "only": "train"}, backoffLimit=1),
        finetunejob("finds-no-node", podTemplate=nowhere),
        finetunejob("queues", labels=QUEUE),
        finetunejob("paused", suspend=True),
        finetunejob("reviewed", dataset=review),
        evalrun("measures"),
        evalrun("judges", adapter=adapter),
        evalrun("judges-worse", FAILS, adapter=adapter),
        evalrun("judges-in-doubt", IN_DOUBT, adapter=adapter),
        evalrun("breaks", None, endings=BROKEN, backoffLimit=1),
        evalrun("queues", labels=QUEUE),
        evalrun("is-early", adapter={"job": "queues"}),
        evalrun("is-lost", adapter={"job": "none-such"}),
        adapterdeployment("starts"),
        adapterdeployment("sleeps", replicas=0),
        adapterdeployment("merges", strategy="Merged"),
        adapterdeployment(
            "has-nothing-to-merge",
            strategy="Merged",
            adapters={"selector": {"matchLabels": {"none": "such"}}},
        ),
        adapterdeployment("finds-no-node", podTemplate=nowhere),
    ]
