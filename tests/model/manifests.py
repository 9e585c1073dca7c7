"""What users apply in the model: few of each, and all that changes how planners decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.api import API_VERSION
from tunesmith.api.objects import Kind
from tunesmith.kube.labels import QUEUE_NAME
from tunesmith.kube.policies import Deciding

from tests.model.api_server import Object, custom
from tests.model.trainer import digest
from tests.unit.operator.given import BASE_URI

JOBS = ("triage", "billing")
SERVED_NAME = "support"
TEAM = {"team": "support"}

#: An adapter that comes from elsewhere.
FOREIGN = digest("from elsewhere")
FOREIGN_URI = "pvc://adapters/foreign"

SUITE = {"name": "held-out", "dataset": {"uri": "pvc://adapters/questions.jsonl"}}


@dataclass(frozen=True)
class JobShape:
    """The choices of a FineTuneJob's author."""

    review: bool = False
    preflight: str = "Skip"
    retry: bool = False
    queued: bool = False
    nodes: int = 1
    backoff_limit: int = 1
    shares_name: bool = True
    ttl: int | None = None
    has_output: bool = True

    def manifest(self, name: str) -> Object:
        evaluation = {"preflight": self.preflight}
        if self.retry:
            evaluation["onFailure"] = "Retry"
        spec: dict[str, Any] = {
            "baseModel": {"uri": BASE_URI},
            "dataset": {
                "uri": "pvc://data/tickets.jsonl",
                "review": {"required": self.review},
            },
            "evaluation": evaluation,
            "resources": {"gpus": 1, "nodes": self.nodes},
            "backoffLimit": self.backoff_limit,
        }
        if self.has_output:
            spec["output"] = {"uri": "pvc://adapters/tuned"}
        if self.shares_name:
            spec["adapterName"] = SERVED_NAME
        if self.ttl is not None:
            spec["ttlSecondsAfterFinished"] = self.ttl
        labels = TEAM | ({QUEUE_NAME: "gpus"} if self.queued else {})
        return custom(Kind.FINE_TUNE_JOB, name, spec, labels=labels)


#: What a policy gives: places for adapters, nodes, a queue, and nothing.
GIVEN: list[dict[str, Any]] = [
    {"output": {"uri": "pvc://adapters/given"}},
    {"output": {"uri": "pvc://adapters/moved"}, "queue": "gpus"},
    {"nodeSelector": {"pool": "tenants"}, "servingImage": "vllm:tenants"},
    {},
]


def policy(given: dict[str, Any]) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": Deciding.POLICY,
        "metadata": {"name": "tenants"},
        "spec": {"defaults": given},
    }


def eval_run(name: str, *, of_job: bool) -> Object:
    """One that somebody applies: of a job's adapter, or of the one from elsewhere."""
    adapter = {"job": JOBS[0]} if of_job else {"uri": FOREIGN_URI, "digest": FOREIGN}
    spec = {
        "baseModel": {"uri": BASE_URI},
        "adapter": adapter,
        "suites": [SUITE],
        "gates": [{"suite": "held-out"}],
        "backoffLimit": 1,
    }
    return custom(Kind.EVAL_RUN, name, spec)


def adapter_deployment(**spec: Any) -> Object:
    made = {
        "baseModel": {"uri": BASE_URI},
        "adapters": {"selector": {"matchLabels": TEAM}},
        "replicas": 1,
        **spec,
    }
    return custom(Kind.ADAPTER_DEPLOYMENT, "serving", made)


def named(gate: str) -> list[Object]:
    return [{"name": "foreign", "uri": FOREIGN_URI, "digest": FOREIGN, "gate": gate}]


#: What is changed about an AdapterDeployment, and about its adapters.
EDITS: list[dict[str, Any]] = [
    {"replicas": 0},
    {"replicas": 1},
    {"replicas": 2},
    {"strategy": "Adapters", "baseReplicas": 1},
    {"strategy": "Adapters", "baseReplicas": 0},
    {"strategy": "Merged", "baseReplicas": 0},
    {"strategy": "Auto", "baseReplicas": 0},
]
ADAPTER_EDITS: list[dict[str, Any]] = [
    {"selector": {"matchLabels": TEAM}},
    {"selector": {"matchLabels": {"team": "sales"}}},
    {"selector": None},
    {"named": named("Passed")},
    {"named": named("None")},
    {"named": []},
    {"keepVersions": 0},
    {"keepVersions": 1},
    {"canary": {"weight": 10, "minutes": 10}},
    {"canary": None},
    {"deleteFiles": True},
    {"deleteFiles": False},
    {"pins": []},
]
