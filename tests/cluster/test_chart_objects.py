"""What helm renders and what the operator builds, judged by the API server, which stores none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tunesmith.settings import HubAccess

from examples.demo.kubectl import Kubectl, KubectlError, Object
from tests.chart.rendering import of_kind, rendered
from tests.chart.test_values import EVERYTHING
from tests.unit.operator import given
from tests.unit.operator.every_pod import HUB_MODEL, every_pod

#: The Prometheus operator's kinds are not there.
KNOWN = {**EVERYTHING, "serving": {"prometheusAddress": "http://prometheus:9090"}}
DRY = ("--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")


def taken(kubectl: Kubectl, objects: list[Object]) -> list[str]:
    """The names that the API server would have stored."""
    everything = {"apiVersion": "v1", "kind": "List", "items": objects}
    return kubectl.run("apply", *DRY, stdin=json.dumps(everything)).splitlines()


def of_the_cluster(each: Object) -> bool:
    return str(each["kind"]).startswith(("Cluster", "Custom", "Validating"))


def here(kubectl: Kubectl, objects: list[Object]) -> list[Object]:
    """The same in a namespace that is there."""
    return [
        each
        if of_the_cluster(each)
        else each | {"metadata": each["metadata"] | {"namespace": kubectl.namespace}}
        for each in objects
    ]


@pytest.mark.parametrize("values", [{}, KNOWN], ids=["defaults", "everything"])
def test_the_api_server_takes_every_object_of_the_chart(kubectl: Kubectl, values: Object) -> None:
    objects = rendered(values)
    assert len(taken(kubectl, here(kubectl, objects))) == len(objects)


def pods_of_every_kind() -> dict[str, Object]:
    """Those of jobs and servers, with and without what a platform team may set, and the chart's."""
    cached = HubAccess("https://hub.example.com", "pvc://hub/models")
    settings = replace(given.SETTINGS, pull_secrets=("mirror",), hub=cached)
    (operator,) = of_kind(rendered(), "Deployment")
    # It is admitted as what it is; its own account is in another namespace.
    pod = operator["spec"]["template"]
    pod["spec"]["serviceAccountName"] = "default"
    return {
        **every_pod(),
        **{f"{name}, hub": each for name, each in every_pod(settings, HUB_MODEL).items()},
        "operator": pod,
    }


def as_pod(name: str, template: Object) -> Object:
    metadata: dict[str, Any] = template["metadata"] | {"name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_every_pod_is_admitted_where_pod_security_is_restricted(kubectl: Kubectl) -> None:
    pods = pods_of_every_kind()
    objects = [as_pod(f"pod-{number}", each) for number, each in enumerate(pods.values())]
    assert len(taken(kubectl, objects)) == len(pods)
    objects[0]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        taken(kubectl, objects[:1])
