"""Two replicas of the operator: exactly one acts, and the other takes over."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from examples.demo.kubectl import Kubectl

OPERATOR = "app.kubernetes.io/component=operator"
DEPLOYMENT = "deployment/tunesmith-operator"
#: A lease that nobody gave back expires after 15 s; starting and trying again take a few more.
TAKE_OVER_SECONDS = 40


@pytest.fixture
def system() -> Iterator[Kubectl]:
    """The operator's namespace, with two replicas."""
    kubectl = Kubectl("tunesmith-system")
    kubectl.run("scale", DEPLOYMENT, "--replicas=2")
    kubectl.run("rollout", "status", DEPLOYMENT, "--timeout=60s")
    yield kubectl
    kubectl.run("scale", DEPLOYMENT, "--replicas=1")
    kubectl.run("rollout", "status", DEPLOYMENT, "--timeout=60s")
    wait_for_holder(kubectl, {name(pod) for pod in kubectl.list("pods", OPERATOR)})


def name(pod: dict[str, dict[str, str]]) -> str:
    return pod["metadata"]["name"]


def holder(kubectl: Kubectl) -> str:
    return str(kubectl.get("lease", "tunesmith-operator")["spec"].get("holderIdentity"))


def wait_for_holder(kubectl: Kubectl, names: set[str]) -> str:
    deadline = time.monotonic() + TAKE_OVER_SECONDS
    while (found := holder(kubectl)) not in names:
        assert time.monotonic() < deadline, f"{found} holds the lease, none of {names}"
        time.sleep(0.5)
    return found


def acting(kubectl: Kubectl, pod: str) -> bool:
    return "holds the lease" in kubectl.run("logs", pod)


def test_one_replica_acts_and_the_other_takes_over_even_from_one_that_was_killed(
    system: Kubectl,
) -> None:
    replicas = {name(pod) for pod in system.list("pods", OPERATOR)}
    leader = wait_for_holder(system, replicas)
    (standby,) = replicas - {leader}
    assert acting(system, leader)
    assert not acting(system, standby)
    # Killed, it has no time to give the lease back.
    system.run("delete", "pod", leader, "--grace-period=0", "--force", "--wait=false")
    remaining = {name(pod) for pod in system.list("pods", OPERATOR)} - {leader}
    assert wait_for_holder(system, remaining | {standby}) != leader
