"""Which pods the NetworkPolicies choose, and what they let them reach.

The development cluster has no network plugin that enforces policies. What is asked here is what
such a plugin decides from: labels, peers and ports.
"""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api import trainer_contract
from tunesmith.api.serving_contract import (
    METRICS_PORT,
    PROXY_CONTROL_PORT,
    PROXY_PORT,
    SIDECAR_PORT,
    VLLM_PORT,
)
from tunesmith.kube.network import Destination

from examples.demo.kubectl import Object
from tests.chart.rendering import of_kind, rendered
from tests.unit.operator import given
from tests.unit.operator.every_pod import HUB_MODEL, every_pod, trains

TEAM = "support"
EVERYBODY_HTTPS = "public 443"
DNS = "dns 53"


def policies(**changes: Any) -> list[Object]:
    values = {"networkPolicy": {"enabled": True, "namespaces": [TEAM], **changes}}
    return of_kind(rendered(values), "NetworkPolicy")


def chooses(selector: Object, labels: dict[str, str]) -> bool:
    """As Kubernetes reads a label selector, as far as ours go."""
    for each in selector.get("matchExpressions", []):
        assert each["operator"] in ("Exists", "DoesNotExist")
        if (each["key"] in labels) != (each["operator"] == "Exists"):
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def of_pod(labels: dict[str, str], namespace: str = TEAM, **changes: Any) -> list[Object]:
    return [
        each["spec"]
        for each in policies(**changes)
        if each["metadata"].get("namespace") == namespace
        and chooses(each["spec"]["podSelector"], labels)
    ]


def ingress_ports(specs: list[Object]) -> set[int]:
    rules = [rule for each in specs for rule in each.get("ingress", [])]
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


def reached(specs: list[Object]) -> set[str]:
    """What the egress rules say in words; a peer that is a pod is no place outside."""
    found = set()
    for rule in (rule for each in specs for rule in each.get("egress", [])):
        ports = {port["port"] for port in rule.get("ports", [])}
        if ports == {53}:
            found.add(DNS)
        elif any("ipBlock" in peer for peer in rule["to"]):
            assert ports == {443}
            found.add(EVERYBODY_HTTPS)
    return found


def labels_of(pod: Object) -> dict[str, str]:
    return dict(pod["metadata"]["labels"])


def test_there_are_none_unless_they_are_asked_for() -> None:
    assert of_kind(rendered(), "NetworkPolicy") == []


def test_the_namespaces_of_the_operator_have_them_where_no_others_are_named() -> None:
    values = {"networkPolicy": {"enabled": True}, "operator": {"namespaces": ["search"]}}
    found = {
        each["metadata"].get("namespace") for each in of_kind(rendered(values), "NetworkPolicy")
    }
    assert found == {None, "search"}


@pytest.mark.parametrize("kind", list(every_pod()))
def test_every_pod_of_ours_is_held_in_both_directions(kind: str) -> None:
    held = {each for spec in of_pod(labels_of(every_pod()[kind])) for each in spec["policyTypes"]}
    assert held == {"Ingress", "Egress"}


@pytest.mark.parametrize("kind", [each for each in every_pod() if each != "serving"])
def test_a_trainer_pod_with_everything_on_claims_reaches_nothing(kind: str) -> None:
    assert reached(of_pod(labels_of(every_pod()[kind]))) == {DNS}


def test_a_trainer_pod_reaches_what_its_job_names_and_nothing_else() -> None:
    pod = labels_of(every_pod(base_model=HUB_MODEL)["training"])
    assert reached(of_pod(pod)) == {DNS, EVERYBODY_HTTPS}
    assert reached(of_pod(pod, reaches={"hub": []})) == {DNS}


def test_there_is_a_policy_for_everything_that_a_pod_can_reach() -> None:
    names = {each["metadata"]["name"] for each in policies()}
    assert {f"tunesmith-trainers-{each}" for each in Destination} <= names


def test_public_means_neither_the_cluster_nor_the_clouds_own_addresses() -> None:
    (policy,) = (each for each in policies() if each["metadata"]["name"].endswith("-trainers-s3"))
    (rule,) = policy["spec"]["egress"]
    excluded = rule["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(excluded)


def test_only_the_pods_of_a_training_on_several_nodes_talk_to_each_other() -> None:
    index = {"batch.kubernetes.io/job-completion-index": "0"}
    several = labels_of(trains(resources={"gpus": 8, "nodes": 2})[-1]["spec"]["template"]) | index
    alone = labels_of(every_pod()["training"])
    assert len(of_pod(several)) == len(of_pod(alone)) + 1


def test_of_a_trainer_pod_only_its_progress_is_asked_for() -> None:
    assert ingress_ports(of_pod(labels_of(every_pod()["training"]))) == {
        trainer_contract.PROGRESS_PORT
    }


def test_of_a_serving_pod_only_the_proxy_is_asked_by_clients() -> None:
    specs = of_pod(labels_of(every_pod()["serving"]))
    assert ingress_ports(specs) == {PROXY_PORT, SIDECAR_PORT}
    assert not {VLLM_PORT, PROXY_CONTROL_PORT} & ingress_ports(specs)
    scraped = of_pod(labels_of(every_pod()["serving"]), monitoring=[{"podSelector": {}}])
    assert ingress_ports(scraped) == {PROXY_PORT, SIDECAR_PORT, METRICS_PORT}


def test_the_operator_reaches_the_api_server_and_its_pods() -> None:
    (operator,) = (each["spec"] for each in policies() if "namespace" not in each["metadata"])
    ports = {port["port"] for rule in operator["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6443, trainer_contract.PROGRESS_PORT, SIDECAR_PORT}
    (pods,) = (rule["to"][0] for rule in operator["egress"] if rule["ports"][0]["port"] == 9400)
    for pod in every_pod(given.SETTINGS).values():
        assert chooses(pods["podSelector"], labels_of(pod))
