"""An AdapterDeployment and all that is around it, played forward pass by pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml
from tunesmith.adapterdeployment.decision import Observed, Replica
from tunesmith.adapterdeployment.errands import VERSION
from tunesmith.adapterdeployment.objects import OPTIONS_DIGEST, SERVES, Role, child_name, pod_labels
from tunesmith.adapterdeployment.plan import plan
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Condition
from tunesmith.api.serving_contract import (
    DESIRED_FILE,
    SERVER_FILE,
    AdapterReport,
    AdapterState,
    DesiredAdapter,
    DesiredState,
    ReplicaReport,
    Traffic,
    state_digest,
)
from tunesmith.api.serving_status import AdapterDeploymentStatus, ServedAdapter, ServingState
from tunesmith.kube.conditions import find
from tunesmith.kube.plan import Plan
from tunesmith.kube.policies import NO_DEFAULTS, Defaults
from tunesmith.settings import Settings

from tests.unit.operator import given


def digest(number: int) -> str:
    return f"sha256:{number:012x}{0:052x}"


def version(number: int) -> str:
    return digest(number).removeprefix("sha256:")[:12]


def ready_job(
    name: str = "triage",
    number: int = 1,
    *,
    serves: str | None = None,
    age: float | None = None,
    rank: int = 16,
    claim: str = "models",
    base: str = given.BASE_URI,
    **status: Any,
) -> FineTuneJob:
    """A job whose adapter passed: version ``number``; the higher, the newer."""
    return FineTuneJob.from_object(
        {
            "metadata": given.metadata(name)
            | {"creationTimestamp": given.moment(10_000 - number if age is None else age)},
            "spec": {
                "baseModel": {"uri": base},
                "dataset": {"uri": "pvc://data/tickets.jsonl"},
                "output": {"uri": f"pvc://{claim}/tuned"},
                **({"adapterName": serves} if serves else {}),
            },
            "status": {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "reason": "EvaluationPassed",
                        "message": "",
                        "lastTransitionTime": given.moment(1),
                    }
                ],
                "artifact": {
                    "uri": f"pvc://{claim}/tuned/{name}",
                    "digest": digest(number),
                    "baseModelDigest": given.BASE_DIGEST,
                    "rank": rank,
                },
                "evaluation": {
                    "name": f"{name}-eval",
                    "verdict": "Passed",
                    "adapterDigest": digest(number),
                },
                **status,
            },
        }
    )


def versions_of(name: str, *numbers: int) -> list[FineTuneJob]:
    return [ready_job(f"job-{number}", number, serves=name) for number in numbers]


def passed_run(number: int = 1, **spec: Any) -> EvalRun:
    status = {"verdict": "Passed", "adapterDigest": digest(number)}
    return given.evalrun("judge", status | {"baseModelDigest": given.BASE_DIGEST}, **spec)


#: What a replica says of one version.
Says = Callable[[DesiredAdapter], AdapterReport]


def holds_it(adapter: DesiredAdapter) -> AdapterReport:
    return AdapterReport(model=adapter.model, digest=adapter.digest, state=AdapterState.READY)


def is_still_loading(adapter: DesiredAdapter) -> AdapterReport:
    return AdapterReport(model=adapter.model, digest=adapter.digest, state=AdapterState.LOADING)


def refuses(name: str, reason: str = "NotFinite") -> Says:
    """Refuses this adapter, and holds all others."""

    def says(adapter: DesiredAdapter) -> AdapterReport:
        if not adapter.model.startswith(f"{name}@"):
            return holds_it(adapter)
        return holds_it(adapter).model_copy(
            update={
                "state": AdapterState.REFUSED,
                "reason": reason,
                "message": "The training diverged.",
            }
        )

    return says


@dataclass
class World:
    """A namespace of the cluster. ``step`` is one pass of the operator, carried out."""

    deployment: AdapterDeployment = field(default_factory=given.adapterdeployment)
    jobs: list[FineTuneJob] = field(default_factory=list)
    runs: list[EvalRun] = field(default_factory=list)
    settings: Settings = given.SETTINGS
    children: dict[tuple[str, str], given.Raw] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    #: What the policies of the namespace give.
    defaults: Defaults = NO_DEFAULTS
    replicas: list[Replica] = field(default_factory=list)
    merge_jobs: list[given.Raw] = field(default_factory=list)
    merge_pods: list[given.Raw] = field(default_factory=list)

    def observed(self) -> Observed:
        return Observed(
            deployment=self.deployment,
            jobs=self.jobs,
            runs=self.runs,
            children=self.children,
            foreign=self.foreign,
            given=self.defaults,
            replicas=self.replicas,
            jobs_of_ours=self.merge_jobs,
            job_pods=self.merge_pods,
        )

    def plan(self, now: datetime = given.NOW) -> Plan:
        return plan(self.observed(), self.settings, now)

    def step(self, now: datetime = given.NOW) -> AdapterDeploymentStatus:
        """Decide, write what was decided, remember the status."""
        made = self.plan(now)
        for each in copy.deepcopy(list(made.apply)):
            self.children[each["kind"], each["metadata"]["name"]] = each
        for each in made.create:
            if each["kind"] == "Job":
                uid = f"uid-{each['metadata']['name']}"
                each["metadata"] |= {"uid": uid, "creationTimestamp": given.moment(60)}
                self.merge_jobs.append(each)
        assert isinstance(made.status, AdapterDeploymentStatus)
        self.deployment = self.deployment.model_copy(update={"status": made.status})
        return made.status

    def change(self, **spec: Any) -> None:
        """The user edits the spec; status stays."""
        edited = given.adapterdeployment(**spec)
        self.deployment = edited.model_copy(update={"status": self.deployment.status})

    # --- what lies in the cluster ----------------------------------------------------------------

    def child(self, kind: str, role: Role = Role.ADAPTERS) -> given.Raw:
        return self.children[kind, child_name(self.deployment, role)]

    def template(self, role: Role = Role.ADAPTERS) -> given.Raw:
        return dict(self.child("Deployment", role)["spec"]["template"])

    def files(self, role: Role = Role.ADAPTERS) -> dict[str, str]:
        """Of the ConfigMap that the pods of this server mount."""
        volumes = self.template(role)["spec"]["volumes"]
        name = next(each["configMap"]["name"] for each in volumes if "configMap" in each)
        return dict(self.children["ConfigMap", name]["data"])

    def options(self, role: Role = Role.ADAPTERS) -> given.Raw:
        return dict(yaml.safe_load(self.files(role)[SERVER_FILE]))

    def desired(self, role: Role = Role.ADAPTERS) -> DesiredState:
        return DesiredState.model_validate_json(self.files(role)[DESIRED_FILE])

    # --- what the pods say -----------------------------------------------------------------------

    def replica(
        self,
        says: Says = holds_it,
        *,
        number: int = 1,
        role: Role = Role.ADAPTERS,
        ready: bool = True,
        behind: bool = False,
        traffic: dict[str, Traffic] | None = None,
    ) -> Replica:
        """A pod that was made from the present template; ``behind`` has older files."""
        pod = given.pod(phase="Running" if ready else "Pending")
        pod["metadata"] |= {
            "name": f"pod-{number}",
            "labels": pod_labels(self.deployment, role),
            "annotations": dict(self.template(role)["metadata"]["annotations"]),
        }
        pod["spec"]["volumes"] = copy.deepcopy(self.template(role)["spec"]["volumes"])
        assert {SERVES} <= pod["metadata"]["labels"].keys()
        assert {OPTIONS_DIGEST} <= pod["metadata"]["annotations"].keys()
        report = ReplicaReport(
            desired="older" if behind else state_digest(self.files(role)[DESIRED_FILE]),
            starts=1,
            serving=True,
            base=self.desired(role).base.name,
            adapters=[says(each) for each in self.desired(role).adapters],
            traffic=traffic or {},
        )
        return Replica(pod, report)

    def answer(self, *says: Says, traffic: dict[str, Traffic] | None = None) -> None:
        """As many pods as there are arguments, all ready and up to date."""
        self.replicas = [
            self.replica(each, number=number, traffic=traffic)
            for number, each in enumerate(says or (holds_it,), start=1)
        ]

    def settle(self, now: datetime = given.NOW) -> AdapterDeploymentStatus:
        """Pass, let every wanted pod take it up, pass: until nothing changes."""
        for _ in range(4):
            self.step(now)
            self.answer(*[holds_it] * self.deployment.spec.replicas)
        return self.step(now)

    def merge(self, number: int, condition: str = "Complete") -> None:
        """The Job that merges or deletes a version ends."""
        for each in self.merge_jobs:
            if each["metadata"]["labels"][VERSION] == version(number):
                each["status"] = {
                    "conditions": [
                        {
                            "type": condition,
                            "status": "True",
                            "reason": "",
                            "lastTransitionTime": given.moment(5),
                        }
                    ]
                }


def settled(*jobs: FineTuneJob, **spec: Any) -> World:
    """Everything is served and has been for a while."""
    world = World(given.adapterdeployment(**spec), list(jobs))
    world.settle()
    return world


def states(status: AdapterDeploymentStatus) -> dict[str, tuple[str, int]]:
    """State and weight by version."""
    return {each.version: (str(each.state), each.weight) for each in status.adapters}


def served(status: AdapterDeploymentStatus, name: str) -> ServedAdapter:
    (found,) = [each for each in status.adapters if each.name == name]
    return found


def condition(status: AdapterDeploymentStatus, type_: str) -> Condition:
    found = find(status.conditions, type_)
    assert found is not None
    return found


def is_ready(status: AdapterDeploymentStatus) -> bool:
    ready = condition(status, "Ready").status == "True"
    assert ready == (status.state is ServingState.READY)
    return ready
