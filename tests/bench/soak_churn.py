"""What users do all day, in rounds: they create, suspend, resume, scale and delete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from examples.demo.kubectl import Kubectl, Object
from tests.bench.operator_stage import TRAINING, apply_all, finetunejob
from tests.unit.operator import given

#: New jobs of a round. The last is deleted while it works, the others once they are done.
JOBS = 4
#: Rounds after which an object is deleted: in the middle of its work, or long after.
SOON, LATE = 1, 12
#: Jobs that stay: stopped and let go on in turn, and never done.
STEADY = ("steady-0", "steady-1", "steady-2")
ENDLESS_SECONDS = 1e6
DEPLOYMENT = "serving"
KINDS = ("finetunejobs", "evalruns", "adapterdeployments")


@dataclass
class Churn:
    """The rounds so far."""

    kubectl: Kubectl
    rounds: int = 0
    made: int = 0
    #: Names by the round in which they are deleted.
    due: dict[int, list[str]] = field(default_factory=dict)

    def begin(self) -> None:
        steady = [finetunejob(name, ENDLESS_SECONDS) for name in STEADY]
        apply_all(self.kubectl, [*steady, deployment()])

    def round(self) -> None:
        """A second or two of everything."""
        number = self.rounds
        apply_all(self.kubectl, self._new(number))
        steady = STEADY[number % len(STEADY)]
        stopped = number // len(STEADY) % 2 == 0
        self._patch("finetunejob", steady, {"suspend": stopped})
        self._patch("adapterdeployment", DEPLOYMENT, scaled(number))
        if gone := self.due.pop(number, []):
            self.kubectl.run("delete", "--wait=false", "--ignore-not-found", *gone)
        self.rounds += 1

    def end(self) -> None:
        """Delete all that is ours, and nothing of what the operator made."""
        for kind in KINDS:
            self.kubectl.run("delete", kind, "--all", "--wait", timeout=300)

    def _new(self, number: int) -> Iterator[Object]:
        for each in range(JOBS):
            name = f"churn-{number:05}-{each}"
            when = SOON if each == JOBS - 1 else LATE
            self.due.setdefault(number + when, []).append(f"finetunejob/{name}")
            yield finetunejob(name, 1 + each)
        self.due.setdefault(number + LATE, []).append(f"evalrun/run-{number:05}")
        yield evalrun(f"run-{number:05}")
        self.made += JOBS + 1

    def _patch(self, kind: str, name: str, spec: Object) -> None:
        self.kubectl.run("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}))


def on_simulated_nodes() -> Object:
    return dict(finetunejob("any", 1)["spec"]["podTemplate"])


def evalrun(name: str) -> Object:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "EvalRun",
        "metadata": {"name": name},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "adapter": {"uri": "pvc://adapters/tuned", "digest": given.DIGEST},
            "suites": [{"name": "held-out", "dataset": {"uri": "pvc://data/heldout.jsonl"}}],
            "gates": [{"suite": "held-out"}],
            "podTemplate": on_simulated_nodes(),
        },
    }


def deployment() -> Object:
    """Its pods run on simulated nodes, where no sidecar answers: it is never ready."""
    template = on_simulated_nodes()
    del template["annotations"][TRAINING]
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": DEPLOYMENT},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "podTemplate": template,
            **scaled(0),
        },
    }


def scaled(number: int) -> Object:
    """None, one or two replicas, and now and then another adapter."""
    adapter = {
        "name": "tuned",
        "uri": f"pvc://adapters/version-{number // 5}",
        "digest": f"sha256:{number // 5:064x}",
        "gate": "None",
    }
    return {"replicas": number % 3, "adapters": {"named": [adapter]}}
