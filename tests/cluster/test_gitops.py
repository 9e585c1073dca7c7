"""What Argo CD does to our objects, with kubectl in its place: apply, prune, replace.

Real API server and operator; the pods run on simulated nodes (``tests.gitops.scenes``).
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from tunesmith.kube.cluster import FIELD_MANAGER

from examples.demo.chain import ROOT
from examples.demo.kubectl import Kubectl, KubectlError, Object, conditions
from tests.cluster.manifests import claim
from tests.cluster.test_simulated_gpus import devcluster
from tests.cluster.test_stages import BY, DATA, annotate, own_name, until, until_state
from tests.gitops import scenes
from tests.gitops.argocd import CHECKS, rendered

ROUNDS = 20
#: Longer than the operator takes to react to anything.
QUIET_SECONDS = 8
DOCUMENT = (ROOT / "docs" / "gitops.md").read_text()
TEAM = ROOT / "examples" / "gitops" / "teams" / "support"


@pytest.fixture(scope="module")
def gpus() -> Iterator[None]:
    devcluster("kwok-up", "--nodes", "2")
    yield
    devcluster("kwok-down")


@pytest.fixture
def team(kubectl: Kubectl, gpus: None) -> Kubectl:
    for name in scenes.CLAIMS:
        kubectl.apply(claim(name))
    return kubectl


def sync(kubectl: Kubectl, *manifests: Object, manager: str = "argocd-controller") -> None:
    """As Argo CD does with ServerSideApply=true, but without its force: a conflict is an error.

    kubectl does not validate, as a manager may apply a part only; the API server does.
    """
    items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    options = ("--server-side", f"--field-manager={manager}", "--validate=false", "-f", "-")
    kubectl.run("apply", *options, stdin=json.dumps(items))


def replace(kubectl: Kubectl, manifest: Object, *options: str) -> None:
    """As Argo CD does with Replace=true."""
    kubectl.run("replace", *options, "-f", "-", stdin=json.dumps(manifest))


def live(kubectl: Kubectl, manifest: Object) -> Object:
    text = kubectl.run(
        *("get", manifest["kind"], manifest["metadata"]["name"], "-o", "json"),
        "--show-managed-fields",
    )
    return dict(json.loads(text))


def versions(kubectl: Kubectl, manifests: list[Object]) -> list[tuple[str, int]]:
    found = [live(kubectl, each)["metadata"] for each in manifests]
    return [(each["resourceVersion"], each["generation"]) for each in found]


def children(kubectl: Kubectl) -> dict[str, str]:
    """Every Job, pod and EvalRun of the namespace, by its uid."""
    found = [each for kind in ("jobs", "pods", "evalruns") for each in kubectl.list(kind)]
    return {each["metadata"]["uid"]: each["metadata"]["name"] for each in found}


def a_persons_part(manifest: Object) -> Object:
    """What somebody adds to an object that lies in git: a label, and a field that is not there."""
    metadata = {"name": manifest["metadata"]["name"], "labels": {"cost-centre": "support"}}
    spec = {"ttlSecondsAfterFinished": 86400} if manifest["kind"] == "FineTuneJob" else {}
    return {key: manifest[key] for key in ("apiVersion", "kind")} | {
        "metadata": metadata,
        "spec": spec,
    }


def finished(kubectl: Kubectl, name: str) -> Object:
    """A job that went all its way to an adapter."""
    manifest = scenes.finetunejob(name)
    sync(kubectl, manifest)
    kubectl.wait(f"finetunejob/{name}", "Ready", 120)
    return manifest


def test_two_field_managers_and_the_operator_do_not_fight(team: Kubectl) -> None:
    in_git = [
        finished(team, "trained"),
        scenes.evalrun("measured"),
        scenes.adapterdeployment("asleep", replicas=0),
    ]
    theirs = [a_persons_part(each) for each in in_git]
    sync(team, *in_git)
    sync(team, *theirs, manager="person")
    team.wait("evalrun/measured", "Succeeded", 60)
    until(lambda: live(team, in_git[2]).get("status", {}).get("state") == "ScaledToZero")
    time.sleep(QUIET_SECONDS)

    before = versions(team, in_git)
    for _ in range(ROUNDS):
        sync(team, *in_git)
        sync(team, *theirs, manager="person")
    time.sleep(QUIET_SECONDS)
    assert versions(team, in_git) == before
    for each in in_git:
        metadata = live(team, each)["metadata"]
        ours = [one for one in metadata["managedFields"] if one["manager"] == FIELD_MANAGER]
        assert [one.get("subresource") for one in ours] == ["status"]
        assert [set(one["fieldsV1"]) for one in ours] == [{"f:status"}]
        assert metadata["labels"]["cost-centre"] == "support"


def test_a_sync_while_a_job_trains_changes_nothing_about_it(team: Kubectl) -> None:
    job = scenes.finetunejob("trains", endings={"never-ends": "true"})
    sync(team, job)
    until(lambda: team.list("pods", "tunesmith.dev/finetunejob=trains"))
    before = children(team)
    for _ in range(3):
        sync(team, job)
        sync(team, a_persons_part(job), manager="person")
    time.sleep(QUIET_SECONDS)
    assert children(team) == before
    # The person's field was the one change of the spec.
    assert live(team, job)["metadata"]["generation"] == 2
    assert live(team, job)["status"]["observedGeneration"] == 2


def test_a_finished_job_that_is_synced_again_starts_nothing(team: Kubectl) -> None:
    job = finished(team, "done")
    before, status = children(team), live(team, job)["status"]
    sync(team, job)
    replace(team, job)
    time.sleep(QUIET_SECONDS)
    assert children(team) == before
    assert live(team, job)["status"] == status


def test_a_job_that_is_pruned_takes_its_children_along(team: Kubectl) -> None:
    finished(team, "pruned")
    assert team.list("evalruns")
    assert team.list("pods")
    team.run("delete", "finetunejob", "pruned", "--cascade=foreground", "--wait", "--timeout=60s")
    until(lambda: not children(team))


def test_a_changed_job_is_refused_and_a_forced_replacement_is_a_new_run(team: Kubectl) -> None:
    job = finished(team, "changes")
    first = live(team, job)["metadata"]["uid"]
    changed = scenes.finetunejob("changes", lora={"rank": 8})
    for way in (sync, replace):
        with pytest.raises(KubectlError, match="spec of a FineTuneJob cannot be changed"):
            way(team, changed)
    assert live(team, job)["metadata"]["uid"] == first

    replace(team, changed, "--force", "--timeout=60s")
    team.wait("finetunejob/changes", "Ready", 120)
    again = live(team, job)
    assert again["metadata"]["uid"] != first
    assert again["spec"]["lora"]["rank"] == 8


def test_an_approval_outlives_a_sync_but_not_a_replacement(kubectl: Kubectl) -> None:
    job = scenes.finetunejob("approved", suspend=True)
    sync(kubectl, job)
    annotate(kubectl, "approved", **{DATA: "sha256:1", BY: own_name(kubectl)})
    sync(kubectl, job)
    assert DATA in live(kubectl, job)["metadata"]["annotations"]
    replace(kubectl, job)
    assert DATA not in live(kubectl, job)["metadata"].get("annotations", {})


def test_a_job_of_git_may_be_paused_and_resumed_in_git(team: Kubectl) -> None:
    sync(team, scenes.finetunejob("paused", suspend=True))
    until_state(team, "paused", "Suspended")
    sync(team, scenes.finetunejob("paused"))
    team.wait("finetunejob/paused", "Ready", 120)


def test_what_a_quota_refuses_is_said_of_the_spec_that_was_seen(kubectl: Kubectl) -> None:
    """Tools that follow kstatus wait forever where the observed generation is an older one."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-jobs"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    kubectl.apply(quota)
    until(lambda: kubectl.get("resourcequota", "no-jobs").get("status", {}).get("hard"))
    job = scenes.finetunejob("refused")
    sync(kubectl, job)
    until(lambda: conditions(live(kubectl, job)).get("Stalled", {}).get("reason") == "Refused")
    found = live(kubectl, job)
    assert "exceeded quota" in conditions(found)["Stalled"]["message"]
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]


def test_the_health_checks_join_argo_cds_own_settings_by_the_documents_command(
    kubectl: Kubectl,
) -> None:
    """Those were set by ``kubectl apply``, which server-side apply would take over."""
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "argocd-cm"},
            "data": {"url": "https://argocd.example.com"},
        }
    )
    objects = rendered(argocd__healthChecks="true", argocd__namespace=kubectl.namespace)
    (checks,) = [each for each in objects if each["metadata"]["name"] == CHECKS]
    kubectl.apply(checks)
    (command,) = re.findall(r"^(kubectl patch configmap argocd-cm .+?)^```", DOCUMENT, re.M | re.S)
    here = command.replace("--namespace argocd", f"--namespace {kubectl.namespace}")
    for _ in range(2):
        subprocess.run(["bash", "-ec", here], check=True)
        found = kubectl.get("configmap", "argocd-cm")
        assert found["data"] == {"url": "https://argocd.example.com", **checks["data"]}


def test_the_example_of_a_team_is_what_the_api_server_takes(kubectl: Kubectl) -> None:
    told = kubectl.run("apply", "--server-side", "--dry-run=server", "-f", str(TEAM))
    assert len(told.splitlines()) == 4
