"""What TuningPolicies give to jobs that do not say it themselves, and what it leaves alone.

Real API server, Job controller and kubelet; the trainer is played (``played_trainer``).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.kubectl import Kubectl, Object, conditions
from tests.cluster.policies import only, policy, refusal
from tests.cluster.policy_cases import job, run
from tests.cluster.test_stages import (
    finetunejob,
    finish,
    namespace_of_players,
    runs,
    training_jobs,
    until,
    until_state,
)


@pytest.fixture(scope="module")
def team() -> Iterator[Kubectl]:
    with namespace_of_players("given") as kubectl:
        yield kubectl


def without_output(name: str, **more: Any) -> Object:
    wanted = finetunejob(name, **more)
    del wanted["spec"]["output"]
    return wanted


def test_what_a_policy_gives_is_used_and_never_written_into_the_job(team: Kubectl) -> None:
    wanted = without_output("given", evaluation={"preflight": "Advise"})
    team.apply(wanted)
    stalled = until_state(team, "given", "Waiting")
    assert "no TuningPolicy says where" in conditions(stalled)["Stalled"]["message"]

    gives = {
        "output": {"uri": "pvc://adapters"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "tenants", "operator": "Exists"}],
        "trainerImage": "tunesmith.dev/trainer:dev",
        "queue": "team-queue",
    }
    # What the operator makes itself follows from a job that was admitted.
    allowed: Object = {"destinations": ["s3://elsewhere/*"], "maxHours": 1}
    where = only(team.namespace)
    with policy(team.namespace, namespaces=where, allowed=allowed, defaults=gives):
        made = until(lambda: team.find("evalrun", "given-preflight"))
        assert made["spec"]["outputUri"].startswith("pvc://adapters/")
        assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
        assert "spec.outputUri" in (refusal(team, run(outputUri="pvc://adapters")) or "")
        prepared = team.get("job", "given-prepare-1")["spec"]
        pod = prepared["template"]["spec"]
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert {"key": "tenants", "operator": "Exists"} in pod["tolerations"]
        assert prepared["activeDeadlineSeconds"] == 3600
        evaluation = until(lambda: team.find("job", "given-preflight-eval-1"))["spec"]
        assert (evaluation["suspend"], evaluation["activeDeadlineSeconds"]) == (True, 3600)

        # As a tool does that syncs from git: there is nothing to write, again and again.
        before = team.get("finetunejob", "given")
        for manager in ("one", "another"):
            team.run(
                *("apply", "--server-side", "--force-conflicts", "--field-manager", manager),
                *("-f", "-"),
                stdin=json.dumps(wanted),
            )
        after = team.get("finetunejob", "given")
        assert after["spec"] == before["spec"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"] == 1
        assert not {"output", "activeDeadlineSeconds"} & after["spec"].keys()
        team.run("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(wanted))
    team.run("delete", "finetunejob", "given")


def test_a_job_in_the_policys_queue_follows_admission_and_preemption(team: Kubectl) -> None:
    """No Kueue is here: the test does what Kueue does to a Job of its queue. Admitted, it may run,
    on the nodes of the flavour that it got; preempted, it may not, and gets its own back."""
    defaults = {"output": {"uri": "pvc://adapters"}, "queue": "team-queue"}
    with policy(team.namespace, namespaces=only(team.namespace), defaults=defaults):
        team.apply(without_output("waits"))
        until_state(team, "waits", "Queued")
        patch_job(team, "waits-train-1", False, {"kubernetes.io/os": "linux"})
        until(lambda: runs(team, "waits"))

    # The policy is gone, which changes nothing about what runs: its job is still in its queue.
    patch_job(team, "waits-train-1", True)
    until_state(team, "waits", "Queued")
    said = conditions(team.get("finetunejob", "waits"))
    assert "waits in the queue team-queue" in said["Succeeded"]["message"]
    assert said["Stalled"]["status"] == "False"
    patch_job(team, "waits-train-1", True, {"kubernetes.io/os": None})
    patch_job(team, "waits-train-1", False, {"kubernetes.io/arch": "amd64"})
    until(lambda: runs(team, "waits"))
    finish(team, "waits")
    assert training_jobs(team, "waits") == ["waits-train-1"]
    status = team.get("finetunejob", "waits")["status"]
    assert (status["attempt"], status["countedFailures"]) == (1, 0)
    assert status["output"] == {"uri": "pvc://adapters"}


def patch_job(
    kubectl: Kubectl, name: str, suspend: bool, nodes: dict[str, str | None] | None = None
) -> None:
    spec: Object = {"suspend": suspend}
    if nodes:
        spec["template"] = {"spec": {"nodeSelector": nodes}}
    kubectl.run("patch", "job", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_labels_of_a_namespace_decide_as_they_change(team: Kubectl) -> None:
    label = f"chosen-{uuid.uuid4().hex[:6]}"
    where = {"matchLabels": {label: "yes"}}
    defaults = {"output": {"uri": "pvc://adapters"}}
    team.apply(without_output("labelled"))
    until_state(team, "labelled", "Waiting")
    with policy(label, namespaces=where, allowed={"methods": []}, defaults=defaults):
        team.run("label", "namespace", team.namespace, f"{label}=yes")
        until(lambda: team.find("job", "labelled-prepare-1"))
        until(lambda: refusal(team, job()))
    team.run("delete", "finetunejob", "labelled")
