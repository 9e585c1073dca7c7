"""Jobs in a queue of the real Kueue: admitted, preempted by what matters more, admitted again.

Kueue's own manager, API server, Job controller and kubelet; the trainer is played
(``played_trainer``). What Kueue may do to a Job and this test does not ask of it is played in
``test_policy_defaults`` and ``test_stages``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.kubectl import Kubectl, Object, conditions
from tests.cluster.policies import only, policy
from tests.cluster.test_policy_defaults import without_output
from tests.cluster.test_simulated_gpus import devcluster
from tests.cluster.test_stages import (
    finish,
    namespace_of_players,
    runs,
    training_jobs,
    training_pods,
    until,
    until_state,
)

FLAVOUR = {"kubernetes.io/os": "linux"}


@pytest.fixture(scope="module")
def kueue() -> Iterator[None]:
    """It goes again: while it runs, nobody else can play it."""
    devcluster("kueue-up")
    yield
    devcluster("kueue-down")


@pytest.fixture(scope="module")
def team(kueue: None) -> Iterator[Kubectl]:
    """A namespace whose queue has room for one job, by its policy."""
    with namespace_of_players("kueue") as kubectl:
        for each in queues(kubectl.namespace):
            kubectl.apply(each)
        defaults = {"output": {"uri": "pvc://adapters"}, "queue": "team-queue"}
        with policy(kubectl.namespace, namespaces=only(kubectl.namespace), defaults=defaults):
            yield kubectl
        kubectl.run("delete", "finetunejobs", "--all")


def queues(namespace: str) -> Iterator[Object]:
    """Quota for one played trainer, on nodes of one flavour, and a class of what matters more."""
    quota = [
        {"name": "cpu", "nominalQuota": "60m"},
        {"name": "memory", "nominalQuota": "16Gi"},
    ]
    resources = {
        "coveredResources": [each["name"] for each in quota],
        "flavors": [{"name": "tenants", "resources": quota}],
    }
    yield of_kueue("ResourceFlavor", "tenants", spec={"nodeLabels": FLAVOUR})
    yield of_kueue("WorkloadPriorityClass", "urgent", value=1000)
    yield of_kueue(
        "ClusterQueue",
        "tenants",
        spec={
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [resources],
        },
    )
    local = of_kueue("LocalQueue", "team-queue", spec={"clusterQueue": "tenants"})
    local["metadata"]["namespace"] = namespace
    yield local


def of_kueue(kind: str, name: str, **content: Any) -> Object:
    version = "kueue.x-k8s.io/v1beta2"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}


def test_a_job_is_admitted_preempted_and_goes_on_as_the_same_attempt(team: Kubectl) -> None:
    team.apply(without_output("usual"))
    until(lambda: runs(team, "usual"))
    (pod,) = training_pods(team, "usual")
    assert pod["spec"]["nodeSelector"].items() >= FLAVOUR.items()

    urgent = {"kueue.x-k8s.io/priority-class": "urgent"}
    team.apply(without_output("urgent", labels=urgent))
    until(lambda: runs(team, "urgent"))
    preempted = until_state(team, "usual", "Queued")
    said = conditions(preempted)
    assert "waits in the queue team-queue" in said["Succeeded"]["message"]
    assert said["Stalled"]["status"] == "False"
    until(lambda: training_pods(team, "usual") == [])

    finish(team, "urgent")
    team.run("delete", "finetunejob", "urgent")
    until(lambda: runs(team, "usual"))
    finish(team, "usual")
    status = team.get("finetunejob", "usual")["status"]
    assert (status["attempt"], status["countedFailures"]) == (1, 0)
    assert training_jobs(team, "usual") == ["usual-train-1"]


def test_a_job_that_is_suspended_gives_its_quota_back(team: Kubectl) -> None:
    team.apply(without_output("first"))
    until(lambda: runs(team, "first"))
    team.apply(without_output("second"))
    until_state(team, "second", "Queued")
    team.run("patch", "finetunejob", "first", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    until(lambda: runs(team, "second"))
    until_state(team, "first", "Suspended")
