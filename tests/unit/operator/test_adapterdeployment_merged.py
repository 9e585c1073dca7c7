"""Merged weights: one adapter, merged by a Job before it is served alone."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tunesmith.adapterdeployment.objects import Role
from tunesmith.api.serving_contract import Route, Target
from tunesmith.api.serving_status import ServingState, Strategy

from tests.unit.operator import given
from tests.unit.operator.serving_given import (
    World,
    condition,
    digest,
    is_ready,
    ready_job,
    served,
    states,
    version,
    versions_of,
)

OLD, NEW = version(1), version(2)


def merging(strategy: str = "Merged", **spec: Any) -> World:
    """The first version is being merged."""
    deployment = given.adapterdeployment(strategy=strategy, **spec)
    world = World(deployment, versions_of("triage", 1))
    world.step()
    return world


def merged(strategy: str = "Merged", **spec: Any) -> World:
    """The first version is served."""
    world = merging(strategy, **spec)
    world.merge(1)
    assert is_ready(world.settle())
    return world


def with_a_new_version() -> World:
    """The first version is served, the second one is being merged."""
    world = merged()
    world.jobs = versions_of("triage", 1, 2)
    world.step()
    return world


def job_names(world: World) -> list[str]:
    return [each["metadata"]["name"] for each in world.merge_jobs]


def test_first_the_version_is_merged_and_nothing_else_is_made() -> None:
    world = merging()
    assert job_names(world) == [f"serving-merge-{OLD}-1"]
    assert not world.children
    assert world.deployment.status.state is ServingState.MERGING
    assert world.deployment.status.server is not None
    assert world.deployment.status.server.strategy is Strategy.MERGED


def test_the_plan_of_the_merge_names_what_was_judged() -> None:
    world = World(given.adapterdeployment(strategy="Merged"), versions_of("triage", 1))
    (job,) = world.plan().create
    merge = given.plan_of(job)
    assert (merge["adapterDigest"], merge["baseModelDigest"]) == (digest(1), given.BASE_DIGEST)
    assert merge["output"]["uri"] == f"{merge['adapter']['uri']}-merged"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "trainer:1"
    assert "nvidia.com/gpu" not in json.dumps(container["resources"])


def test_a_merge_under_way_is_not_started_twice() -> None:
    world = merging()
    (job,) = world.merge_jobs
    job["metadata"] |= {"uid": "uid-job", "creationTimestamp": given.moment(5)}
    world.step()
    assert len(world.merge_jobs) == 1


@pytest.mark.parametrize("strategy", ["Merged", "Auto"])
def test_it_is_served_alone_once_the_merge_is_complete(strategy: str) -> None:
    world = merged(strategy)
    options = world.options()
    assert options["model"] == "/mnt/claims/models/tuned/job-1-merged"
    assert options["served-model-name"] == f"triage@{OLD}"
    assert "enable-lora" not in options
    assert world.desired().routes == [Route(name="triage", targets=[Target(model=f"triage@{OLD}")])]
    assert not world.desired().adapters
    assert states(world.deployment.status) == {OLD: ("Promoted", 100)}
    assert condition(world.deployment.status, "Ready").message == "1 of 1 replicas serve triage."


def test_a_new_version_is_merged_while_the_old_one_is_served() -> None:
    world = merged()
    before = copy.deepcopy(world.template())
    world.jobs = versions_of("triage", 1, 2)
    status = world.step()
    assert states(status) == {OLD: ("Promoted", 100), NEW: ("Joining", 0)}
    assert job_names(world)[-1] == f"serving-merge-{NEW}-1"
    assert world.template() == before
    assert status.state is ServingState.MERGING
    ready = condition(status, "Ready")
    assert (ready.status, ready.reason) == ("False", "Merging")
    assert ready.message == "Attempt 1 waits for its pod to start."
    assert condition(status, "Stalled").status == "False"


def test_a_merge_of_a_new_version_that_fails_is_told_and_tried_again() -> None:
    world = with_a_new_version()
    world.merge(2, "Failed")
    status = world.step()
    assert status.state is ServingState.MERGING
    assert "Attempt 1 failed" in condition(status, "Ready").message
    assert states(status)[OLD] == ("Promoted", 100)


def test_a_merge_of_a_new_version_that_is_stuck_is_told() -> None:
    world = with_a_new_version()
    world.merge_jobs[-1]["metadata"] |= {"uid": "uid-job", "creationTimestamp": given.moment(60)}
    status = world.step()
    assert status.state is ServingState.WAITING
    for type_ in ("Ready", "Stalled"):
        assert condition(status, type_).reason == "NoPod"
        assert f"serving-merge-{NEW}-1" in condition(status, type_).message
    assert states(status)[OLD] == ("Promoted", 100)


def test_what_is_served_is_merged_whatever_became_of_the_job() -> None:
    world = merged()
    world.merge_jobs = []
    made = world.plan()
    assert not made.create
    assert not made.apply
    assert made.status == world.deployment.status


@pytest.mark.parametrize(
    ("ready", "report"),
    [(False, {}), (True, {"serving": False}), (True, {"base": f"triage@{NEW}"})],
    ids=["not ready", "not serving", "another version"],
)
def test_a_replica_that_does_not_serve_the_version_proves_no_merge(
    ready: bool, report: given.Raw
) -> None:
    world = merged()
    world.merge_jobs = []
    replica = world.replica(ready=ready)
    assert replica.report is not None
    world.replicas = [replace(replica, report=replica.report.model_copy(update=report))]
    assert [each["kind"] for each in world.plan().create] == ["Job"]


def test_then_the_pods_roll_and_each_keeps_the_files_of_its_version() -> None:
    world = merged()
    world.jobs = versions_of("triage", 1, 2)
    world.step()
    world.merge(2)
    status = world.step()
    assert states(status) == {NEW: ("Promoted", 100)}
    assert not is_ready(status), "the pods still serve the old one"
    assert not world.plan().annotate, "nobody calls them: they do not mount the new files"
    assert world.options()["served-model-name"] == f"triage@{NEW}"
    assert {name for kind, name in world.children if kind == "ConfigMap"} == {
        f"serving-vllm-{OLD}",
        f"serving-vllm-{NEW}",
    }
    assert is_ready(world.settle())
    assert served(world.deployment.status, "triage").version == NEW


def test_a_second_adapter_is_told_why_it_is_not_served() -> None:
    world = merged()
    world.jobs.append(ready_job("urgent", 9))
    status = world.settle()
    assert [(each.name, each.reason) for each in status.not_served] == [
        ("urgent", "OneAdapterOnly")
    ]
    assert is_ready(status)


def test_an_adapter_whose_name_sorts_first_does_not_displace_the_one_that_is_served() -> None:
    world = merged()
    world.jobs.append(ready_job("aaa", 9))
    status = world.settle()
    assert [each.name for each in status.adapters] == ["triage"]
    assert [(each.name, each.reason) for each in status.not_served] == [("aaa", "OneAdapterOnly")]
    assert is_ready(status)


def test_without_an_adapter_there_is_nothing_to_merge() -> None:
    world = World(given.adapterdeployment(strategy="Merged"))
    status = world.step()
    assert status.state is ServingState.WAITING
    assert condition(status, "Ready").reason == "NoAdapter"
    assert not world.children


def test_a_first_merge_that_fails_is_told() -> None:
    world = merging()
    world.merge(1, "Failed")
    status = world.step()
    assert status.state is ServingState.MERGING
    assert "Attempt 1 failed" in condition(status, "Ready").message


# Auto


@pytest.mark.parametrize(
    ("jobs", "spec", "strategy"),
    [
        ([], {}, Strategy.ADAPTERS),
        (["a"], {}, Strategy.MERGED),
        (["a", "b"], {}, Strategy.ADAPTERS),
        (["a"], {"baseReplicas": 1}, Strategy.ADAPTERS),
    ],
)
def test_auto_merges_a_single_adapter(jobs: list[str], spec: given.Raw, strategy: Strategy) -> None:
    adapters = [ready_job(name, number) for number, name in enumerate(jobs, start=1)]
    world = World(given.adapterdeployment(strategy="Auto", **spec), adapters)
    server = world.step().server
    assert server is not None
    assert server.strategy is strategy
    assert server.strategy_reason


def test_auto_goes_to_adapters_beside_the_base_with_the_second_one() -> None:
    world = merged("Auto")
    world.jobs.append(ready_job("urgent", 9))
    status = world.settle()
    assert is_ready(status)
    assert world.options()["enable-lora"] is True
    assert {each.name for each in world.desired().routes} == {"triage", "urgent"}
    assert ("Deployment", "serving-base") not in world.children
    assert world.child("Deployment", Role.ADAPTERS)["spec"]["replicas"] == 1


def test_an_adapter_that_was_withdrawn_is_served_no_more() -> None:
    world = merged()
    world.jobs = []
    made = world.plan()
    assert ("Deployment", "serving-vllm") in made.delete


def test_a_version_that_was_withdrawn_does_not_answer_until_another_can() -> None:
    """Pods of the version before may find no GPU, or not start."""
    world = with_a_new_version()
    world.merge(2)
    assert is_ready(world.settle())
    world.jobs = versions_of("triage", 1)
    made = world.plan()
    assert ("Deployment", "serving-vllm") in made.delete
    assert "Deployment" not in {each["kind"] for each in made.apply}
    del world.children["Deployment", "serving-vllm"]
    world.replicas = []
    world.step()
    assert world.options()["served-model-name"] == f"triage@{OLD}"


def named(number: int, uri: str) -> given.Raw:
    return {"name": "triage", "uri": uri, "digest": digest(number), "gate": "None"}


def merged_by_name() -> World:
    """The first version is served, and named."""
    adapters = {"named": [named(1, "pvc://models/one")]}
    world = World(given.adapterdeployment(strategy="Merged", adapters=adapters))
    world.step()
    world.merge(1)
    assert is_ready(world.settle())
    return world


def test_a_named_adapter_that_is_replaced_answers_until_the_next_does() -> None:
    world = merged_by_name()
    world.change(strategy="Merged", adapters={"named": [named(2, "pvc://models/two")]})
    assert ("Deployment", "serving-vllm") not in world.plan().delete, "the merge takes a while"
    world.step()
    world.merge(2)
    made = world.plan()
    assert ("Deployment", "serving-vllm") not in made.delete
    assert "Deployment" in {each["kind"] for each in made.apply}


def test_an_adapter_that_moved_is_merged_there_before_it_is_served_from_there() -> None:
    world = merged_by_name()
    world.change(strategy="Merged", adapters={"named": [named(1, "pvc://faster/one")]})
    world.step()
    assert job_names(world) == [f"serving-merge-{OLD}-1", f"serving-merge-{OLD}-2"]
    assert world.options()["model"] == "/mnt/claims/models/one-merged"
    world.merge_jobs[1]["status"] = copy.deepcopy(world.merge_jobs[0]["status"])
    assert is_ready(world.settle())
    assert world.options()["model"] == "/mnt/claims/faster/one-merged"


def test_a_merge_of_the_first_version_is_not_done_again() -> None:
    world = merging()
    world.merge(1)
    for job in world.merge_jobs:
        del job["metadata"]["labels"]["tunesmith.dev/adapter-place"]
    assert not world.plan().create


def test_of_merges_that_fail_the_last_two_are_kept() -> None:
    world = merging()
    for number in (1, 2):
        world.merge(1, "Failed")
        world.step(given.NOW + timedelta(hours=number))
    assert len(world.merge_jobs) == 3
    made = world.plan(given.NOW + timedelta(hours=2))
    assert made.obsolete == [("Job", f"serving-merge-{OLD}-1")]


def test_while_the_one_that_stays_is_merged_the_other_is_served_no_more() -> None:
    both = [ready_job("billing", 1), ready_job("triage", 2)]
    world = World(given.adapterdeployment(strategy="Auto"), both)
    world.settle()
    assert len(world.desired().adapters) == 2
    world.jobs = both[1:]
    status = world.step()
    assert job_names(world) == [f"serving-merge-{version(2)}-1"]
    assert [each.digest for each in world.desired().adapters] == [digest(2)]
    assert status.state is not ServingState.READY
    world.answer()
    assert served(world.step(), "triage").replicas_ready == 1, "beside the base, until it is merged"


def test_merged_weights_of_an_adapter_that_was_withdrawn_go_before_the_next_are_made() -> None:
    world = merged()
    world.jobs = [ready_job("billing", 2)]
    assert ("Deployment", "serving-vllm") in world.plan().delete
