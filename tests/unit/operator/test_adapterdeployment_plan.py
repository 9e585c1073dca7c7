"""What an AdapterDeployment serves, and what it says about it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from tunesmith.adapterdeployment.objects import (
    CONFIG_DIGEST,
    adapter_path,
    children,
    configuration_digest,
    vllm_configuration,
)
from tunesmith.adapterdeployment.plan import Observed, Replica, contains, plan
from tunesmith.adapterdeployment.selection import Candidate, select
from tunesmith.api.adapterdeployment import AdapterDeploymentStatus, ServingState
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import ConditionStatus
from tunesmith.kube.conditions import find

from tests.unit.operator import given


def ready_job(name: str = "triage", **changes: Any) -> FineTuneJob:
    status: given.Raw = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "EvaluationPassed",
                "message": "",
                "lastTransitionTime": given.moment(1),
            }
        ],
        "artifact": given.artifact().to_json(),
        "evaluation": {
            "name": "triage-aaaaaaaa",
            "verdict": "Passed",
            "adapterDigest": given.DIGEST,
        },
    }
    spec = changes.pop("spec", {})
    return given.finetunejob(name, status=status | changes, **spec)


def candidate(name: str, rank: int = 16) -> Candidate:
    return Candidate(name, f"pvc://adapters/{name}", given.DIGEST, rank, "run")


def options(adapters: list[Candidate], **spec: Any) -> given.Raw:
    text = vllm_configuration(given.adapterdeployment(**spec), adapters)
    return dict(yaml.safe_load(text))


# --- selection -----------------------------------------------------------------------------------


def test_an_adapter_that_passed_for_its_digest_is_served() -> None:
    (served,) = select(given.adapterdeployment(), [ready_job()]).served
    assert (served.name, served.digest) == ("triage", given.DIGEST)


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (given.finetunejob(), "NotTrained"),
        (ready_job(evaluation={"name": "x", "verdict": "Failed"}), "EvaluationPassed"),
        (
            ready_job(
                evaluation={
                    "name": "x",
                    "verdict": "Passed",
                    "adapterDigest": given.BASE_DIGEST,
                }
            ),
            "EvaluationPassed",
        ),
        (ready_job(conditions=[]), "NotTrained"),
        (ready_job(spec={"baseModel": {"uri": "pvc://models/other"}}), "OtherBaseModel"),
        (ready_job(name="smol"), "NameTaken"),
    ],
)
def test_anything_else_is_refused_with_a_reason(job: FineTuneJob, reason: str) -> None:
    selection = select(given.adapterdeployment(), [job])
    assert not selection.served
    assert [each.reason for each in selection.rejected] == [reason]


# --- vLLM's configuration ------------------------------------------------------------------------


def test_lora_modules_are_generated_from_the_adapters() -> None:
    modules = [
        json.loads(each) for each in options([candidate("a"), candidate("b")])["lora-modules"]
    ]
    assert modules == [
        {"name": "a", "path": "/mnt/claims/adapters/a"},
        {"name": "b", "path": "/mnt/claims/adapters/b"},
    ]


def test_without_adapters_the_base_is_served_alone() -> None:
    assert "lora-modules" not in options([])


@pytest.mark.parametrize(("rank", "allowed"), [(4, 8), (16, 16), (24, 32), (512, 512)])
def test_the_rank_is_rounded_up_to_what_vllm_accepts(rank: int, allowed: int) -> None:
    assert options([candidate("a", rank)])["max-lora-rank"] == allowed


def test_on_the_cpu_one_slot_stays_free_for_the_base() -> None:
    assert options([candidate("a")])["max-loras"] == 2
    assert options([candidate("a")], resources={"gpus": 1})["max-loras"] == 1


def test_every_adapter_fits_into_memory_so_that_none_is_read_again_from_disk() -> None:
    many = [candidate(f"a{number}") for number in range(40)]
    assert options(many)["max-cpu-loras"] == 40


# --- what is applied -----------------------------------------------------------------------------


def deployed(adapters: list[Candidate]) -> dict[str, given.Raw]:
    wanted = children(given.adapterdeployment(), adapters, given.SETTINGS)
    return {each["kind"]: copy.deepcopy(each) for each in wanted}


def test_children_that_are_as_wanted_are_not_written_again() -> None:
    adapters = select(given.adapterdeployment(), [ready_job()]).served
    existing = deployed(adapters)
    existing["Deployment"]["spec"]["revisionHistoryLimit"] = 10  # a default of the API server
    seen = Observed(given.adapterdeployment(), [ready_job()], existing)
    assert plan(seen, given.SETTINGS, given.NOW).apply == []


def test_a_child_edited_by_hand_is_put_right() -> None:
    existing = deployed([])
    existing["Deployment"]["spec"]["replicas"] = 7
    made = plan(Observed(given.adapterdeployment(), [], existing), given.SETTINGS, given.NOW)
    assert [each["kind"] for each in made.apply] == ["Deployment"]


def test_a_name_taken_by_somebody_else_is_left_alone() -> None:
    seen = Observed(given.adapterdeployment(), [], {}, ["Service"])
    made = plan(seen, given.SETTINGS, given.NOW)
    assert not made.apply
    ready = find(made.status.conditions, "Ready")
    assert ready is not None
    assert ready.reason == "NameTaken"


@pytest.mark.parametrize(
    ("actual", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, {"labels": {}}, True),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "2Gi"}, False),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "A", "value": ""}]}, True),
        ([1, 2], [1], False),
    ],
)
def test_what_the_api_server_adds_or_rewrites_is_no_difference(
    actual: object, wanted: object, *, same: bool
) -> None:
    assert contains(actual, wanted) is same


# --- what status says ----------------------------------------------------------------------------


def replica(models: dict[str, str], adapters: list[Candidate], *, ready: bool = True) -> Replica:
    configuration = vllm_configuration(given.adapterdeployment(), adapters)
    pod = given.pod(phase="Running" if ready else "Pending")
    pod["metadata"]["annotations"] = {CONFIG_DIGEST: configuration_digest(configuration)}
    return Replica(pod, models)


def judged(running: list[Replica], **spec: Any) -> AdapterDeploymentStatus:
    seen = Observed(given.adapterdeployment(**spec), [ready_job()], {}, [], running)
    status = plan(seen, given.SETTINGS, given.NOW).status
    assert isinstance(status, AdapterDeploymentStatus)
    return status


def test_ready_means_that_every_replica_was_seen_to_offer_the_adapter() -> None:
    adapters = select(given.adapterdeployment(), [ready_job()]).served
    offered = {"triage": adapter_path(adapters[0])}
    status = judged([replica(offered, adapters)])
    assert status.state is ServingState.READY
    assert [each.replicas_ready for each in status.adapters] == [1]


@pytest.mark.parametrize("models", [{}, {"triage": "/mnt/claims/adapters/something-else"}])
def test_a_replica_that_does_not_offer_exactly_this_adapter_is_not_ready(
    models: dict[str, str],
) -> None:
    adapters = select(given.adapterdeployment(), [ready_job()]).served
    status = judged([replica(models, adapters)])
    ready = find(status.conditions, "Ready")
    assert ready is not None
    assert ready.status is ConditionStatus.FALSE
    assert [each.replicas_ready for each in status.adapters] == [0]


def test_a_pod_with_an_older_configuration_does_not_count() -> None:
    adapters = select(given.adapterdeployment(), [ready_job()]).served
    old = replica({"triage": adapter_path(adapters[0])}, [])
    assert judged([old]).state is ServingState.UPDATING


def test_scaled_to_zero_is_said_and_is_no_trouble() -> None:
    status = judged([], replicas=0)
    assert status.state is ServingState.SCALED_TO_ZERO
    stalled = find(status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.status is ConditionStatus.FALSE
