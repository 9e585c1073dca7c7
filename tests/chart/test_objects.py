"""What the chart makes of its values: rights, replicas, images."""

from __future__ import annotations

from typing import Any

from tunesmith.api.objects import Kind

from examples.demo.kubectl import Object
from tests.chart.rendering import NAMESPACE, named, of_kind, rendered

OPERATOR = "tunesmith-operator"
DIGEST = "sha256:" + "a" * 64


def operators(values: Object | None = None) -> Object:
    """The pod of the operator."""
    pod = named(rendered(values), "Deployment", OPERATOR)["spec"]["template"]["spec"]
    return dict(pod)


def environment(values: Object | None = None) -> dict[str, Any]:
    (container,) = operators(values)["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


def in_namespaces(*names: str) -> Object:
    return {"operator": {"namespaces": list(names)}}


def test_with_a_list_of_namespaces_the_operator_has_its_rights_there_and_nowhere_else() -> None:
    everywhere, listed = rendered(), rendered(in_namespaces("support", "search"))
    rules = named(everywhere, "ClusterRole", OPERATOR)["rules"]
    for namespace in ("support", "search"):
        assert named(listed, "Role", OPERATOR, namespace)["rules"] == rules
        (subject,) = named(listed, "RoleBinding", OPERATOR, namespace)["subjects"]
        assert (subject["name"], subject["namespace"]) == (OPERATOR, NAMESPACE)
    (binding,) = of_kind(listed, "ClusterRoleBinding")
    cluster = named(listed, "ClusterRole", binding["roleRef"]["name"])["rules"]
    assert {each for rule in cluster for each in rule["resources"]} == {
        "tuningpolicies",
        "namespaces",
    }
    assert {each for rule in cluster for each in rule["verbs"]} == {"list", "watch"}
    assert environment(in_namespaces("support", "search"))["TUNESMITH_NAMESPACES"] == (
        "support search"
    )
    assert "TUNESMITH_NAMESPACES" not in environment()


def test_approvals_and_policies_are_watched_over_where_the_operator_acts() -> None:
    bindings = of_kind(rendered(in_namespaces("support")), "ValidatingAdmissionPolicyBinding")
    assert len(bindings) == 1 + len(Kind)
    for each in bindings:
        (expression,) = each["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert expression["values"] == ["support"]


def test_no_rule_names_everything_nor_reads_secrets() -> None:
    for role in (*of_kind(rendered(), "ClusterRole"), *of_kind(rendered(), "Role")):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert "secrets" not in rule["resources"]


def test_two_replicas_are_spread_and_leave_one_at_a_time() -> None:
    assert named(rendered(), "Deployment", OPERATOR)["spec"]["replicas"] == 2
    (spread,) = operators()["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    budget = named(rendered(), "PodDisruptionBudget", OPERATOR)
    assert budget["spec"]["maxUnavailable"] == 1
    alone = {"operator": {"replicas": 1}}
    assert of_kind(rendered(alone), "PodDisruptionBudget") == []
    assert "topologySpreadConstraints" not in operators(alone)


def test_the_operator_itself_needs_no_privileges() -> None:
    pod = operators()
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} == container["resources"]["requests"].keys()
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_a_registry_is_put_before_every_image_and_a_digest_is_kept() -> None:
    images = {"registry": "mirror.example.com/", "trainer": f"team/trainer@{DIGEST}"}
    told = environment({"images": images})
    (container,) = operators({"images": images})["containers"]
    assert told["TUNESMITH_TRAINER_IMAGE"] == f"mirror.example.com/team/trainer@{DIGEST}"
    assert told["TUNESMITH_SERVING_IMAGE"].startswith("mirror.example.com/vllm/vllm-openai:")
    assert told["TUNESMITH_OPERATOR_IMAGE"] == container["image"]
    assert container["image"].startswith("mirror.example.com/tunesmith.dev/operator:")


def test_pull_secrets_are_the_operators_and_are_told_to_it_for_all_other_pods() -> None:
    values = {"images": {"pullSecrets": [{"name": "mirror"}, {"name": "second"}]}}
    assert operators(values)["imagePullSecrets"] == [{"name": "mirror"}, {"name": "second"}]
    assert environment(values)["TUNESMITH_PULL_SECRETS"] == "mirror second"


def test_the_hubs_mirror_and_cache_are_told_to_the_operator() -> None:
    values = {"huggingFace": {"endpoint": "https://hub.example.com", "cache": "pvc://hub"}}
    told = environment(values)
    assert told["TUNESMITH_HUB_ENDPOINT"] == "https://hub.example.com"
    assert told["TUNESMITH_HUB_CACHE"] == "pvc://hub"
    assert not [name for name in environment() if name.startswith("TUNESMITH_HUB_")]


def test_people_have_our_kinds_by_the_roles_they_have_anyway() -> None:
    view, edit = (
        named(rendered(), "ClusterRole", f"tunesmith-{name}") for name in ("view", "edit")
    )
    aggregated = "rbac.authorization.k8s.io/aggregate-to-"
    assert {"view", "edit", "admin"} == {
        key.removeprefix(aggregated) for key in view["metadata"]["labels"] if aggregated in key
    }
    assert f"{aggregated}view" not in edit["metadata"]["labels"]
    assert not any("status" in each for rule in edit["rules"] for each in rule["resources"])
    without = rendered({"roles": {"aggregate": False}})
    left = {each["metadata"]["name"] for each in of_kind(without, "ClusterRole")}
    assert left == {OPERATOR, "tunesmith-policies"}
