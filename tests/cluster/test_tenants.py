"""What a tenant may do, asked of the real API server in the tenant's name.

The tenants have Kubernetes' own ClusterRoles `edit` and `view` in their namespace, and no more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Kubectl, KubectlError, Object
from tests.cluster.test_stages import until
from tests.unit.docs.pages import page

#: What never may be seen outside a Secret.
CANARY = "canary-4f1c9e07-of-a-secret"
STATUS = {"verdict": "Passed", "state": "Passed", "adapterDigest": "sha256:" + "a" * 64}
RUN: Object = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "EvalRun",
    "metadata": {"name": "forged"},
    "spec": {
        "baseModel": {"uri": "pvc://none/model"},
        "adapter": {"uri": "pvc://none/adapter", "digest": STATUS["adapterDigest"]},
        "suites": [{"name": "own", "dataset": {"uri": "pvc://none/questions.jsonl"}}],
        "outputUri": "pvc://none/evaluations",
    },
}
JOB: Object = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "made"},
    "spec": {
        "baseModel": {"uri": "pvc://none/model"},
        "dataset": {"uri": "pvc://none/rows.jsonl", "review": {"required": True}},
        "output": {"uri": "pvc://none"},
        "suspend": True,
    },
}
DEPLOYMENT: Object = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "AdapterDeployment",
    "metadata": {"name": "served"},
    "spec": {"baseModel": {"uri": "pvc://none/model"}, "replicas": 0},
}


@dataclass(frozen=True)
class Tenant:
    """Somebody who is known to the cluster, and bound to a role in one namespace."""

    kubectl: Kubectl
    name: str

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        return self.kubectl.run("--as", self.name, *words, stdin=stdin)

    def apply(self, manifest: Object) -> str:
        return self("apply", "-f", "-", stdin=json.dumps(manifest))


@pytest.fixture(scope="module")
def namespace() -> Iterator[Kubectl]:
    kubectl = create_namespace(f"tenants-{uuid.uuid4().hex[:6]}")
    for role in ("edit", "view"):
        kubectl.run("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}or")
    yield kubectl
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="module")
def editor(namespace: Kubectl) -> Tenant:
    """Aggregation takes a controller's moment after the chart was installed."""
    tenant = Tenant(namespace, "editor")
    until(lambda: may(tenant, "create", "evalruns.tunesmith.dev"))
    return tenant


@pytest.fixture(scope="module")
def viewer(namespace: Kubectl) -> Tenant:
    return Tenant(namespace, "viewor")


def may(tenant: Tenant, *words: str) -> bool:
    try:
        return tenant("auth", "can-i", *words).strip() == "yes"
    except KubectlError:
        return False


def refused(tenant: Tenant, *words: str) -> None:
    with pytest.raises(KubectlError, match="forbidden"):
        tenant(*words)


def test_a_tenant_writes_the_kinds_and_scales(editor: Tenant) -> None:
    editor.apply(RUN)
    editor.apply(DEPLOYMENT)
    editor("scale", "adapterdeployment", "served", "--replicas=0")
    editor("label", "evalrun", "forged", "team=own")


def test_a_tenant_cannot_forge_a_verdict(editor: Tenant) -> None:
    """A verdict is read from a status, which the operator alone may write."""
    editor.apply({**RUN, "status": STATUS})
    seen = json.loads(editor("get", "evalrun", "forged", "-o", "json"))
    assert "verdict" not in seen.get("status", {}), "a status that came with the object was kept"
    for kind in ("evalruns", "finetunejobs", "adapterdeployments"):
        for verb in ("patch", "update"):
            assert not may(editor, verb, f"{kind}.tunesmith.dev", "--subresource=status")
    patch = json.dumps({"status": STATUS})
    words = ("patch", "evalrun", "forged", "--subresource=status", "--type=merge", "-p", patch)
    refused(editor, *words)


def test_a_tenant_that_may_only_look_writes_nothing(editor: Tenant, viewer: Tenant) -> None:
    editor.apply(RUN)
    assert "forged" in viewer("get", "evalruns,finetunejobs,adapterdeployments")
    with pytest.raises(KubectlError, match="forbidden"):
        viewer.apply({**RUN, "metadata": {"name": "other"}})
    refused(viewer, "delete", "evalrun", "forged")
    refused(viewer, "annotate", "evalrun", "forged", "tunesmith.dev/approved-by=viewor")


def test_makers_do_not_approve_and_reviewers_do_not_make(namespace: Kubectl) -> None:
    """With the two Roles that the security page shows."""
    shown = [each for each in page("threat-model.md").blocks("yaml") if "kind: Role" in each]
    roles = "\n".join(shown).replace("namespace: support", f"namespace: {namespace.namespace}")
    namespace.run("apply", "-f", "-", stdin=roles)
    for role in ("makers", "reviewers"):
        namespace.run("create", "rolebinding", role, f"--role={role}", f"--user={role}")
    maker, reviewer = Tenant(namespace, "makers"), Tenant(namespace, "reviewers")
    until(lambda: may(reviewer, "patch", "finetunejobs.tunesmith.dev"))
    maker("create", "-f", "-", stdin=json.dumps(JOB))
    refused(maker, "annotate", "finetunejob", "made", "tunesmith.dev/approved-by=makers")
    approval = {"tunesmith.dev/approved-data": "sha256:1", "tunesmith.dev/approved-by": "makers"}
    approved = {**JOB, "metadata": {"name": "approved", "annotations": approval}}
    with pytest.raises(KubectlError, match="create it without the annotations"):
        maker("create", "-f", "-", stdin=json.dumps(approved))
    reviewer("annotate", "finetunejob", "made", "tunesmith.dev/approved-by=reviewers")
    with pytest.raises(KubectlError, match="forbidden"):
        reviewer("create", "-f", "-", stdin=json.dumps({**JOB, "metadata": {"name": "other"}}))
    refused(reviewer, "delete", "finetunejob", "made")


def test_a_tenant_has_no_right_in_another_namespace(editor: Tenant) -> None:
    for resource in ("evalruns.tunesmith.dev", "persistentvolumeclaims", "pods", "secrets"):
        refused(editor, "get", resource, "--namespace=default")
    refused(editor, "get", "secrets,configmaps,pods,leases", "--namespace=tunesmith-system")


def test_no_secret_is_seen_outside_its_secret(namespace: Kubectl) -> None:
    """A real trainer fails with the credentials at hand; whatever that leaves is searched."""
    header, key = f"HTTPS_AUTHORIZATION=Bearer {CANARY}", f"AWS_SECRET_ACCESS_KEY={CANARY}"
    literals = [f"--from-literal={each}" for each in (header, key, "AWS_ACCESS_KEY_ID=known")]
    namespace.run("create", "secret", "generic", "keys", *literals)
    spec = {
        "baseModel": {
            "uri": "https://127.0.0.1:1/model.tar.gz",
            "digest": STATUS["adapterDigest"],
            "secretRef": {"name": "keys"},
        },
        "dataset": {"uri": "s3://bucket/rows.jsonl", "secretRef": {"name": "keys"}},
        "output": {"uri": "s3://bucket/out", "secretRef": {"name": "keys"}},
        "resources": {"gpus": 0, "cpu": "50m", "memory": "1Gi"},
    }
    namespace.apply({**JOB, "metadata": {"name": "leaky"}, "spec": spec})
    namespace.wait("finetunejob/leaky", "Stalled", 120)
    everything = ("finetunejobs,evalruns,jobs,pods,configmaps,events", "-o", "yaml")
    left = namespace.run("get", *everything, "--show-managed-fields")
    left += namespace.run("logs", "-l", "tunesmith.dev/finetunejob=leaky", "--tail=-1")
    left += Kubectl("tunesmith-system").run(
        "logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1"
    )
    assert "kind: FineTuneJob" in left
    assert "leaky" in left
    assert CANARY not in left
