"""What every pod that we make keeps to, whatever its user wrote into podTemplate."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith.adapterdeployment.objects import OPTIONS_DIGEST, Role
from tunesmith.kube.labels import MANAGED_BY, PLAN

from tests.unit.operator import given
from tests.unit.operator.every_pod import containers, every_pod
from tests.unit.operator.serving_given import settled, versions_of

#: As much as the schema lets anybody write.
OVERLAY: dict[str, Any] = {
    "annotations": {PLAN: "mine", OPTIONS_DIGEST: "mine"},
    "labels": {MANAGED_BY: "mine"},
    "serviceAccountName": "mighty",
    "env": [{"name": "PYTHONPATH", "value": "/mine"}],
}
PODS = every_pod(**OVERLAY)
of_every_kind = pytest.mark.parametrize("kind", PODS)
of_every_server = pytest.mark.parametrize("role", Role)


def serving(role: Role) -> given.Raw:
    access = {"secretRef": {"name": "clients"}}
    world = settled(*versions_of("triage", 1), baseReplicas=1, access=access, podTemplate=OVERLAY)
    return world.template(role)


@of_every_kind
def test_a_volume_is_a_claim_a_config_map_a_secret_or_the_pods_own(kind: str) -> None:
    """Nothing of the node, and nothing of another namespace, which no volume can name."""
    kinds = {"persistentVolumeClaim", "configMap", "secret", "emptyDir", "downwardAPI"}
    for volume in PODS[kind]["spec"]["volumes"]:
        assert volume.keys() - {"name"} <= kinds


@of_every_kind
def test_a_pod_under_a_users_account_holds_no_token_of_it(kind: str) -> None:
    spec = PODS[kind]["spec"]
    assert spec["automountServiceAccountToken"] is False
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert name not in spec


@pytest.mark.parametrize("kind", sorted(PODS.keys() - {"serving"}))
def test_a_users_overlay_cannot_replace_what_the_trainer_is_to_do(kind: str) -> None:
    metadata = PODS[kind]["metadata"]
    assert json.loads(metadata["annotations"][PLAN])["kind"]
    assert metadata["labels"][MANAGED_BY] == "tunesmith"


@of_every_server
def test_a_users_overlay_cannot_replace_what_a_server_was_started_with(role: Role) -> None:
    metadata = serving(role)["metadata"]
    assert metadata["annotations"][OPTIONS_DIGEST] != "mine"
    assert metadata["labels"][MANAGED_BY] == "tunesmith"


@of_every_server
def test_the_keys_of_clients_are_seen_by_the_proxy_alone(role: Role) -> None:
    holders = [
        each["name"]
        for each in containers(serving(role))
        if "keys" in {mount["name"] for mount in each["volumeMounts"]}
    ]
    assert holders == ["proxy"]
