"""What an AdapterDeployment says about itself: nothing but what was seen, replica by replica."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tunesmith.adapterdeployment.decision import Replica
from tunesmith.adapterdeployment.objects import OPTIONS_DIGEST, Role
from tunesmith.api.adapter_selection import GateRule
from tunesmith.api.serving_contract import AdapterReport, DesiredAdapter
from tunesmith.api.serving_status import AdapterDeploymentStatus, ServingState
from tunesmith.kube.conditions import find

from tests.unit.operator import given
from tests.unit.operator.serving_given import (
    World,
    condition,
    digest,
    holds_it,
    is_ready,
    is_still_loading,
    ready_job,
    refuses,
    served,
    settled,
    version,
)


def two_adapters(**spec: Any) -> World:
    """Two adapters on two replicas."""
    return settled(ready_job("triage", 1), ready_job("urgent", 2), replicas=2, **spec)


def changed(replica: Replica, **report: Any) -> Replica:
    assert replica.report is not None
    return replace(replica, report=replica.report.model_copy(update=report))


# Ready


def test_ready_says_that_every_replica_was_seen_to_answer_with_everything() -> None:
    status = two_adapters().deployment.status
    assert is_ready(status)
    assert condition(status, "Ready").message == "2 of 2 replicas serve smol, triage, urgent."
    assert [(each.replicas_ready, each.replicas_wanted) for each in status.adapters] == [(2, 2)] * 2
    assert (status.replicas, status.ready_replicas, status.adapter_count) == (2, 2, 2)


def other_files(adapter: DesiredAdapter) -> AdapterReport:
    return holds_it(adapter).model_copy(update={"digest": digest(99)})


@pytest.mark.parametrize("says", [is_still_loading, other_files])
def test_a_replica_without_exactly_these_files_is_not_ready(says: Any) -> None:
    world = two_adapters()
    world.answer(holds_it, says)
    status = world.step()
    assert not is_ready(status)
    assert [each.replicas_ready for each in status.adapters] == [1, 1]
    assert condition(status, "Ready").message == "1 of 2 replicas serve: triage, urgent."


def test_a_replica_with_an_older_desired_state_is_not_ready() -> None:
    world = two_adapters()
    world.replicas[1] = world.replica(number=2, behind=True)
    assert world.step().state is ServingState.UPDATING


def test_a_replica_whose_vllm_is_away_is_not_ready() -> None:
    world = two_adapters()
    world.replicas[1] = changed(world.replicas[1], serving=False)
    assert not is_ready(world.step())


def test_a_replica_that_does_not_report_is_not_ready() -> None:
    world = two_adapters()
    world.replicas[1] = replace(world.replicas[1], report=None)
    assert not is_ready(world.step())


def test_a_replica_that_was_started_with_other_options_is_not_ready() -> None:
    world = two_adapters()
    world.replicas[1].pod["metadata"]["annotations"][OPTIONS_DIGEST] = "another"
    assert not is_ready(world.step())


def test_all_replicas_that_are_wanted_must_be_there() -> None:
    world = two_adapters()
    world.answer(holds_it)
    assert not is_ready(world.step())


def test_a_replica_beyond_those_wanted_is_not_waited_for() -> None:
    world = two_adapters()
    world.answer(holds_it, holds_it, is_still_loading)
    status = world.step()
    assert is_ready(status)
    assert condition(status, "Ready").message == "2 of 2 replicas serve smol, triage, urgent."


def test_pods_of_the_base_model_must_answer_too() -> None:
    world = two_adapters(baseReplicas=1)
    assert not is_ready(world.step())
    world.replicas.append(world.replica(number=9, role=Role.BASE))
    world.step()
    world.answer(holds_it, holds_it)
    world.replicas.append(world.replica(number=9, role=Role.BASE))
    status = world.step()
    assert is_ready(status)
    assert status.base_ready_replicas == 1


def test_pods_of_the_base_model_must_be_as_wanted_too() -> None:
    world = two_adapters(baseReplicas=1)
    world.step()
    base = world.replica(number=9, role=Role.BASE)
    base.pod["metadata"]["annotations"][OPTIONS_DIGEST] = "another"
    world.answer(holds_it, holds_it)
    world.replicas.append(base)
    world.step()
    world.answer(holds_it, holds_it)
    world.replicas.append(base)
    status = world.step()
    assert not is_ready(status)
    assert "Of 1 pods for the base model 0 do." in condition(status, "Ready").message


def test_of_a_base_server_that_is_wanted_no_more_the_deployment_alone_is_touched() -> None:
    world = two_adapters(baseReplicas=1)
    world.settle()
    world.change(replicas=2)
    # What is not wanted is not looked up.
    for kind in ("ConfigMap", "Service", "PodDisruptionBudget"):
        del world.children[kind, "serving-base"]
    world.step()
    assert world.child("Deployment", Role.BASE)["spec"]["replicas"] == 0
    assert not world.plan().apply


def test_before_any_pod_answers_it_is_starting() -> None:
    world = World(jobs=[ready_job()])
    world.step()
    world.replicas = [world.replica(ready=False)]
    status = world.step()
    assert status.state is ServingState.STARTING
    assert condition(status, "Reconciling").status == "True"


def test_scaled_to_zero_is_said_and_is_no_trouble() -> None:
    world = two_adapters()
    world.change(replicas=0)
    world.replicas = []
    status = world.step()
    assert status.state is ServingState.SCALED_TO_ZERO
    assert condition(status, "Stalled").status == "False"


def test_what_is_on_its_way_is_looked_at_often_and_what_is_ready_is_not() -> None:
    world = two_adapters()
    assert world.plan().requeue_after is None
    world.answer(holds_it, is_still_loading)
    assert world.plan().requeue_after == timedelta(seconds=0.5)


# Degraded


def test_a_refused_adapter_is_named_and_leaves_the_others_alone() -> None:
    world = two_adapters()
    world.answer(refuses("urgent"), refuses("urgent"))
    status = world.step()
    assert status.state is ServingState.DEGRADED
    for type_, expected in (("Ready", "False"), ("Stalled", "True")):
        found = condition(status, type_)
        assert (found.status, found.reason) == (expected, "NotFinite")
        assert f"urgent@{version(2)}" in found.message
        assert "The training diverged." in found.message
    assert served(status, "urgent").replicas_ready == 0
    assert served(status, "urgent").last_error == "NotFinite: The training diverged."
    assert served(status, "triage").replicas_ready == 2
    assert served(status, "triage").last_error is None


@pytest.mark.parametrize("said", ["", "x" * 600, "Two words", "Ready"])
def test_a_replica_whose_image_is_its_users_own_cannot_make_up_a_reason(said: str) -> None:
    world = two_adapters()
    world.answer(refuses("urgent", said), refuses("urgent", said))
    assert condition(world.step(), "Stalled").reason == "InternalError"


def test_one_replica_that_refuses_is_enough() -> None:
    world = two_adapters()
    world.answer(holds_it, refuses("urgent"))
    status = world.step()
    assert status.state is ServingState.DEGRADED
    assert served(status, "urgent").replicas_ready == 1


def test_it_heals() -> None:
    world = two_adapters()
    world.answer(refuses("urgent"), refuses("urgent"))
    world.step()
    assert is_ready(world.settle())


def test_while_others_are_on_their_way_it_is_not_degraded_yet() -> None:
    world = two_adapters()
    world.replicas[0] = world.replica(refuses("urgent"), number=1)
    world.replicas[1] = world.replica(is_still_loading, number=2)
    assert world.step().state is ServingState.UPDATING


# What else status tells


def test_an_adapter_that_nobody_judged_is_marked() -> None:
    named = [{"name": "raw", "uri": "pvc://models/raw", "digest": digest(5), "gate": "None"}]
    world = settled(adapters={"named": named})
    found = served(world.deployment.status, "raw")
    assert (found.gate, found.evaluated_by) == (GateRule.NONE, None)


def test_an_adapter_that_was_judged_names_its_judge() -> None:
    found = served(two_adapters().deployment.status, "triage")
    assert (found.gate, found.evaluated_by, found.job) == (
        GateRule.PASSED,
        "triage-eval",
        "triage",
    )


def test_adapters_that_are_not_served_are_listed_with_a_reason() -> None:
    world = settled(ready_job("triage", 1), ready_job("other", 2, base="pvc://models/other"))
    status = world.deployment.status
    assert [(each.name, each.reason) for each in status.not_served] == [("other", "OtherBaseModel")]
    assert is_ready(status)


def test_what_vllm_was_told_is_shown_without_the_spare_slot() -> None:
    server = two_adapters().deployment.status.server
    assert server is not None
    assert (server.max_loras, server.max_lora_rank, server.max_cpu_loras) == (4, 16, 16)


def test_more_adapters_than_slots_are_warned_about() -> None:
    jobs = [ready_job(f"a{each}", each + 1) for each in range(3)]
    warning = condition(settled(*jobs, server={"maxLoras": 2}).deployment.status, "Warning")
    assert (warning.status, warning.reason) == ("True", "HotSetDoesNotFit")
    assert "3 versions share 2 slots" in warning.message
    roomy = settled(*jobs, server={"maxLoras": 3}).deployment.status
    assert find(roomy.conditions, "Warning") is None


def test_the_selector_for_autoscalers_chooses_the_pods() -> None:
    world = two_adapters()
    labels = world.replicas[0].pod["metadata"]["labels"]
    chosen = dict(each.split("=") for each in (world.deployment.status.selector or "").split(","))
    assert chosen == labels


# Trouble around it


def troubled(**pod: Any) -> AdapterDeploymentStatus:
    world = World(jobs=[ready_job()])
    world.step()
    replica = world.replica(ready=False)
    metadata = replica.pod["metadata"]
    world.replicas = [Replica(given.pod(phase="Pending", **pod) | {"metadata": metadata})]
    return world.step()


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        ({"waiting": {"reason": "ImagePullBackOff"}}, "ImageNotPullable"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "Crashing"),
        ({"unschedulable": "0/3 nodes are available: 3 Insufficient gpu."}, "Unschedulable"),
    ],
)
def test_what_keeps_a_pod_from_running_is_said(pod: given.Raw, reason: str) -> None:
    status = troubled(**pod)
    assert status.state is ServingState.WAITING
    assert condition(status, "Ready").reason == condition(status, "Stalled").reason == reason


def test_pods_that_may_not_be_made_are_said() -> None:
    world = World(jobs=[ready_job()])
    world.step()
    refusal = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
    world.child("Deployment")["status"] = {"conditions": [refusal]}
    found = condition(world.step(), "Stalled")
    assert found.reason == "PodsRefused"
    assert "exceeded quota: gpus" in found.message


def test_a_name_that_is_taken_is_said() -> None:
    status = World(foreign=["Service named serving-vllm"]).step()
    assert status.state is ServingState.WAITING
    found = condition(status, "Ready")
    assert found.reason == "NameTaken"
    assert "Service named serving-vllm" in found.message


def test_keys_that_nobody_has_are_warned_about() -> None:
    world = settled(ready_job("triage", 1), access={"secretRef": {"name": "keys"}})
    for clients, warned in ((0, ["NoClients"]), (2, [])):
        report = world.replicas[0].report
        assert report is not None
        said = report.model_copy(update={"clients": clients})
        world.replicas = [replace(world.replicas[0], report=said)]
        warnings = [
            each.reason
            for each in world.step().conditions
            if each.type == "Warning" and each.status == "True"
        ]
        assert warnings == warned
