"""What an AdapterDeployment makes: servers, what restarts their pods, and who is called."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tunesmith.adapterdeployment.objects import CALLED_FOR, Role
from tunesmith.api.serving_contract import DESIRED_FILE, state_digest
from tunesmith.kube.comparison import contains

from tests.unit.operator import given
from tests.unit.operator.serving_given import (
    World,
    is_ready,
    ready_job,
    settled,
    version,
    versions_of,
)

GPU = {"gpus": 1, "memory": "64Gi"}
NEWER = replace(given.SETTINGS, operator_image="operator:2")


def world(*ranks: int, **spec: Any) -> World:
    """Served: an adapter of each rank, on the claim of the base model."""
    jobs = [ready_job(f"a{number}", number, rank=rank) for number, rank in enumerate(ranks, 1)]
    return settled(*jobs, **spec)


def image(world: World) -> str:
    return str(world.template()["spec"]["initContainers"][0]["image"])


# What restarts pods, and what does not


@pytest.mark.parametrize("resources", [{"gpus": 0}, GPU], ids=["CPU", "GPU"])
def test_no_number_of_adapters_changes_the_pods(resources: given.Raw) -> None:
    serving = world(resources=resources)
    none = copy.deepcopy(serving.template())
    for number in (1, 50, 0):
        serving.jobs = [ready_job(f"a{each}", each + 1) for each in range(number)]
        serving.settle()
        assert len(serving.desired().adapters) == number
        assert serving.template() == none


def test_no_version_changes_the_pods() -> None:
    serving = settled(*versions_of("triage", 1))
    before = copy.deepcopy(serving.template())
    serving.jobs = versions_of("triage", 1, 2, 3)
    serving.settle()
    assert {each.model[-12:] for each in serving.desired().adapters} == {version(2), version(3)}
    assert serving.template() == before


def test_an_adapter_on_a_claim_that_is_not_mounted_rolls_the_pods() -> None:
    serving = world(16)
    before = copy.deepcopy(serving.template())
    serving.jobs.append(ready_job("other", 9, claim="elsewhere"))
    serving.settle()
    assert serving.template() != before
    with_it = copy.deepcopy(serving.template())
    assert {"claimName": "elsewhere"} in [
        each.get("persistentVolumeClaim") for each in with_it["spec"]["volumes"]
    ]
    serving.jobs.pop()
    serving.settle()
    assert serving.template() == with_it, "a claim that is needed no more is no reason"


def test_a_second_job_with_the_same_files_changes_nothing() -> None:
    serving = settled(ready_job("one", 1, serves="triage"))
    before = serving.desired()
    serving.jobs.append(ready_job("two", 1, serves="triage", age=1))
    serving.settle()
    assert serving.desired() == before


def test_a_higher_rank_rolls_the_pods() -> None:
    serving = world(16)
    before = copy.deepcopy(serving.template())
    serving.jobs.append(ready_job("large", 9, rank=24))
    serving.settle()
    assert serving.template() != before
    assert serving.options()["max-lora-rank"] == 32


def test_a_bound_of_the_users_keeps_a_higher_rank_from_rolling_them() -> None:
    serving = world(16, server={"maxLoraRank": 16})
    before = copy.deepcopy(serving.template())
    serving.jobs.append(ready_job("large", 9, rank=24))
    serving.settle()
    assert serving.template() == before
    assert serving.desired().max_lora_rank == 16


def test_a_new_operator_restarts_nothing_until_something_else_does() -> None:
    serving = world(16)
    before = copy.deepcopy(serving.template())
    serving.settings = NEWER
    serving.settle()
    assert (serving.template(), image(serving)) == (before, "operator:1")
    serving.change(maxModelLength=512)
    serving.settle()
    assert image(serving) == "operator:2"
    assert serving.options()["max-model-len"] == 512


# Servers for the base model alone


def base_pods(**spec: Any) -> World:
    serving = world(16, baseReplicas=1, **spec)
    serving.child("Service", Role.BASE)["spec"]["clusterIP"] = "10.1.2.3"
    return serving


def test_the_base_gets_a_server_without_adapters() -> None:
    serving = base_pods()
    assert serving.child("Deployment", Role.BASE)["spec"]["replicas"] == 1
    assert "enable-lora" not in serving.options(Role.BASE)
    assert not serving.desired(Role.BASE).adapters


def test_requests_go_there_while_somebody_is_there() -> None:
    serving = base_pods()
    assert serving.desired().base_address is None
    before = copy.deepcopy(serving.template())
    serving.replicas.append(serving.replica(number=9, role=Role.BASE))
    serving.step()
    assert serving.desired().base_address == "10.1.2.3:80"
    assert serving.template() == before
    serving.replicas[-1] = serving.replica(number=9, role=Role.BASE, ready=False)
    serving.step()
    assert serving.desired().base_address is None


def test_addresses_of_version_6_are_bracketed() -> None:
    serving = base_pods()
    serving.child("Service", Role.BASE)["spec"]["clusterIP"] = "fd00::1"
    serving.replicas.append(serving.replica(number=9, role=Role.BASE))
    serving.step()
    assert serving.desired().base_address == "[fd00::1]:80"


def test_once_made_it_is_scaled_to_zero_and_requests_come_back() -> None:
    serving = base_pods()
    serving.change()
    serving.replicas.append(serving.replica(number=9, role=Role.BASE))
    serving.step()
    assert serving.child("Deployment", Role.BASE)["spec"]["replicas"] == 0
    assert serving.desired().base_address is None


# Pods are called


def behind(now_seconds: float = 0, **annotations: str) -> list[tuple[str, dict[str, str]]]:
    """Who is called, of three replicas: up to date, behind, silent."""
    serving = world(16, replicas=3)
    up_to_date, late, silent = (
        serving.replica(number=1),
        serving.replica(number=2, behind=True),
        serving.replica(number=3),
    )
    late.pod["metadata"]["annotations"] |= annotations
    serving.replicas = [up_to_date, late, replace(silent, report=None)]
    return list(serving.plan(given.NOW + timedelta(seconds=now_seconds)).annotate)


def test_exactly_those_are_called_whose_report_is_behind() -> None:
    ((name, annotations),) = behind()
    assert (name, list(annotations)) == ("pod-2", [CALLED_FOR])


@pytest.mark.parametrize(("seconds", "again"), [(0, False), (4.9, False), (5, True), (60, True)])
def test_who_does_not_come_is_called_again_after_five_seconds(seconds: float, again: bool) -> None:
    ((_, called),) = behind()
    assert bool(behind(seconds, **called)) is again


def test_a_call_names_the_desired_state() -> None:
    serving = world(16)
    serving.replicas = [serving.replica(behind=True)]
    ((_, called),) = serving.plan().annotate
    digest = state_digest(serving.files()[DESIRED_FILE])
    assert called[CALLED_FOR].startswith(f"{digest}.")


def test_a_pod_that_mounts_other_files_is_not_called() -> None:
    serving = world(16)
    other = serving.replica(behind=True)
    other.pod["spec"]["volumes"] = [{"name": "other", "configMap": {"name": "another"}}]
    serving.replicas = [serving.replica(number=2), other]
    assert not serving.plan().annotate


def test_who_was_called_is_looked_at_soon() -> None:
    serving = world(16)
    assert serving.plan().requeue_after is None
    serving.replicas.append(serving.replica(number=2, behind=True))
    assert is_ready(serving.step()), "one beyond those wanted"
    made = serving.plan()
    assert [name for name, _ in made.annotate] == ["pod-2"]
    assert made.requeue_after == timedelta(seconds=0.5)


def test_a_leaving_pod_is_not_called() -> None:
    serving = world(16)
    leaving = serving.replica(behind=True)
    leaving.pod["metadata"]["deletionTimestamp"] = given.moment(1)
    serving.replicas = [leaving]
    assert not serving.plan().annotate


# What is written


def test_children_that_are_as_wanted_are_not_written_again() -> None:
    serving = world(16)
    serving.child("Deployment")["spec"]["revisionHistoryLimit"] = 10  # a default of the API server
    assert serving.plan().apply == []


def test_a_child_edited_by_hand_is_put_right() -> None:
    serving = world(16)
    serving.child("Deployment")["spec"]["replicas"] = 7
    assert [each["kind"] for each in serving.plan().apply] == ["Deployment"]
    serving.child("ConfigMap")["data"][DESIRED_FILE] = json.dumps({})
    assert [each["kind"] for each in serving.plan().apply] == ["ConfigMap", "Deployment"]


def test_next_to_a_name_that_is_taken_nothing_is_made() -> None:
    serving = World(foreign=["Service named serving-vllm"])
    made = serving.plan()
    assert not made.apply
    assert not made.annotate


@pytest.mark.parametrize(
    ("actual", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, {"labels": {}}, True),
        ({"resources": {"memory": "1Gi"}}, {"resources": {"memory": "1024Mi"}}, True),
        ({"resources": {"memory": "1Gi"}}, {"resources": {"memory": "2Gi"}}, False),
        ({"resources": [{"cpu": "1"}]}, {"resources": [{"cpu": "1000m"}]}, True),
        ({"sizeLimit": "1Gi"}, {"sizeLimit": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, False),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "1.0"}]}, False),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "A", "value": ""}]}, True),
        ([1, 2], [1], False),
        ({"a": []}, {"a": {}}, False),
    ],
)
def test_what_the_api_server_adds_or_rewrites_is_no_difference(
    actual: object, wanted: object, *, same: bool
) -> None:
    assert contains(actual, wanted) is same


def test_the_claim_of_a_job_that_has_begun_is_mounted_before_its_verdict() -> None:
    """One that has not begun may name a claim that does not exist, and would hold up the pods."""
    world = settled()
    before = world.template()
    training = given.finetunejob(status={"state": "Training"})
    world.jobs = [training]
    world.step()
    assert world.template() == before
    begun = {"progress": {"phase": "Training", "step": 1}}
    world.jobs = [given.finetunejob(status=begun)]
    world.step()
    assert claims_in(world) == {"models", "adapters"}


def test_claims_that_are_named_are_mounted_from_the_start() -> None:
    assert claims_in(settled(adapters={"claims": ["more"]})) == {"models", "more"}


def test_a_claim_that_nobody_needs_goes_when_the_pods_are_rolled_anyway() -> None:
    world = settled(adapters={"claims": ["more"]})
    world.change()
    assert not world.plan().apply, "it is no reason to roll them"
    world.change(maxModelLength=4096)
    world.step()
    assert claims_in(world) == {"models"}


def claims_in(world: World) -> set[str]:
    volumes = world.template()["spec"]["volumes"]
    found = [each.get("persistentVolumeClaim", {}).get("claimName") for each in volumes]
    return {each for each in found if each}


def test_a_field_that_is_wanted_no_more_is_taken_away() -> None:
    """Its absence is no difference to what is there, but what was applied was another thing."""
    world = World(given.adapterdeployment(podTemplate={"nodeSelector": {"disk": "fast"}}))
    world.step()
    assert not world.plan().apply
    world.change(podTemplate={})
    assert [each["kind"] for each in world.plan().apply] == ["Deployment"]
