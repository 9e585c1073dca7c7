"""What every pod that the operator makes has in common, whatever its user wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith.adapterdeployment.objects import Role
from tunesmith.evalrun.plan import Observed as ObservedRun
from tunesmith.evalrun.plan import plan as plan_run
from tunesmith.kube.labels import PLAN

from tests.unit.operator import given, plans
from tests.unit.operator.serving_given import World, settled, versions_of

#: As hostile as the schema lets it be.
OVERLAY: given.Raw = {
    "annotations": {PLAN: "mine", "tunesmith.dev/options-digest": "mine"},
    "labels": {"app.kubernetes.io/managed-by": "mine"},
    "serviceAccountName": "mighty",
    "env": [{"name": "PYTHONPATH", "value": "/mine"}],
}


def preparing() -> given.Raw:
    made = plans.planned(plans.seen(given.finetunejob(podTemplate=OVERLAY)))
    return plans.created_job(made)


def training() -> given.Raw:
    job = given.finetunejob(status=given.prepared(), evaluation=plans.AT_ONCE, podTemplate=OVERLAY)
    return plans.created_job(plans.planned(plans.seen(job)))


def evaluating() -> given.Raw:
    run = given.evalrun(podTemplate=OVERLAY)
    (job,) = plan_run(ObservedRun(run), given.SETTINGS, given.NOW).create
    return dict(job)


def merging() -> given.Raw:
    deployment = given.adapterdeployment(strategy="Merged", podTemplate=OVERLAY)
    world = World(deployment, versions_of("triage", 1))
    (job,) = [each for each in world.plan().create if each["kind"] == "Job"]
    return dict(job)


def removing() -> given.Raw:
    world = settled(
        *versions_of("triage", 1, 2, 3), adapters={"deleteFiles": True}, podTemplate=OVERLAY
    )
    world.merge_jobs = []
    (job,) = [each for each in world.plan().create if each["kind"] == "Job"]
    return dict(job)


def serving(role: Role = Role.ADAPTERS) -> given.Raw:
    access = {"secretRef": {"name": "clients"}}
    world = settled(*versions_of("triage", 1), baseReplicas=1, access=access, podTemplate=OVERLAY)
    return world.child("Deployment", role)


def serving_the_base() -> given.Raw:
    return serving(Role.BASE)


TRAINERS = (preparing, training, evaluating, merging, removing)
SERVERS = (serving, serving_the_base)
every_workload = pytest.mark.parametrize("workload", [*TRAINERS, *SERVERS])


def pod_of(workload: Any) -> given.Raw:
    return dict(workload()["spec"]["template"])


def containers(pod: given.Raw) -> list[given.Raw]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@every_workload
def test_no_pod_holds_a_token(workload: Any) -> None:
    pod = pod_of(workload)
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert [each for each in pod["spec"]["volumes"] if "projected" in each] == []


@every_workload
def test_no_container_has_privileges_or_a_root_to_write_to(workload: Any) -> None:
    pod = pod_of(workload)
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert name not in pod["spec"]
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@every_workload
def test_a_volume_is_a_claim_a_config_map_a_secret_or_the_pods_own(workload: Any) -> None:
    """Nothing of the node, and nothing of another namespace, which no volume can name."""
    kinds = {"persistentVolumeClaim", "configMap", "secret", "emptyDir", "downwardAPI"}
    for volume in pod_of(workload)["spec"]["volumes"]:
        assert volume.keys() - {"name"} <= kinds


@pytest.mark.parametrize("workload", TRAINERS)
def test_a_users_overlay_cannot_replace_what_the_trainer_is_to_do(workload: Any) -> None:
    metadata = pod_of(workload)["metadata"]
    assert json.loads(metadata["annotations"][PLAN])["kind"]
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "tunesmith"


@pytest.mark.parametrize("workload", SERVERS)
def test_a_users_overlay_cannot_replace_what_a_server_was_started_with(workload: Any) -> None:
    metadata = pod_of(workload)["metadata"]
    assert metadata["annotations"]["tunesmith.dev/options-digest"] != "mine"
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "tunesmith"


@pytest.mark.parametrize("workload", SERVERS)
def test_the_keys_of_clients_are_seen_by_the_proxy_alone(workload: Any) -> None:
    holders = [
        each["name"]
        for each in containers(pod_of(workload))
        if "keys" in {mount["name"] for mount in each["volumeMounts"]}
    ]
    assert holders == ["proxy"]
