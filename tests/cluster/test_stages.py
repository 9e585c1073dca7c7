"""The stages of a FineTuneJob: review, suspension, queues, groups of pods, time to live.

Real API server, Job controller and kubelet; the trainer is played (``played_trainer``).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.demo.chain import ROOT, create_namespace
from examples.demo.kubectl import Kubectl, KubectlError, Object, conditions
from tests.cluster.manifests import claim
from tests.cluster.test_faults import copy_in

DATA, BY = "tunesmith.dev/approved-data", "tunesmith.dev/approved-by"
QUEUE = {"kueue.x-k8s.io/queue-name": "team-queue"}
PLAYED = "/mnt/claims/library/played"


@contextmanager
def namespace_of_players(prefix: str) -> Iterator[Kubectl]:
    """A namespace whose jobs find the played trainer on the claim of their base model."""
    kubectl = create_namespace(f"{prefix}-{uuid.uuid4().hex[:6]}")
    for name in ("library", "adapters"):
        kubectl.apply(claim(name))
    kubectl.apply(str(ROOT / "examples" / "demo" / "loader.yaml"))
    kubectl.wait("pod/loader", "Ready", 60)
    program = Path(__file__).with_name("played_trainer.py").read_bytes()
    folder = "played/tunesmith_trainer"
    copy_in(kubectl, {f"{folder}/__init__.py": b"", f"{folder}/__main__.py": program})
    yield kubectl
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="module")
def team() -> Iterator[Kubectl]:
    with namespace_of_players("stages") as kubectl:
        yield kubectl


def finetunejob(
    name: str, labels: dict[str, str] | None = None, played: str = "", **spec: Any
) -> Object:
    environment = [{"name": "PYTHONPATH", "value": f"{PLAYED}:/opt/tunesmith/operator"}]
    if played:
        environment.append({"name": "PLAYED", "value": played})
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "baseModel": {"uri": "pvc://library/models/any"},
            "dataset": {"uri": "pvc://library/any.jsonl"},
            "output": {"uri": "pvc://adapters"},
            "evaluation": {"preflight": "Skip"},
            "resources": {"gpus": 0, "cpu": "50m", "memory": "256Mi"},
            "podTemplate": {"env": environment},
            **spec,
        },
    }


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.5)
    return found


def until_state(kubectl: Kubectl, name: str, state: str, seconds: float = 60) -> Object:
    def look() -> Object | None:
        job = kubectl.get("finetunejob", name)
        return job if job.get("status", {}).get("state") == state else None

    return dict(until(look, seconds))


def set_suspend(kubectl: Kubectl, kind: str, name: str, suspend: bool) -> None:
    patch = json.dumps({"spec": {"suspend": suspend}})
    kubectl.run("patch", kind, name, "--type=merge", "-p", patch)


def training_pods(kubectl: Kubectl, name: str) -> list[Object]:
    return kubectl.list("pods", f"tunesmith.dev/finetunejob={name},tunesmith.dev/stage=train")


def training_jobs(kubectl: Kubectl, name: str) -> list[str]:
    chosen = f"tunesmith.dev/finetunejob={name},tunesmith.dev/stage=train"
    jobs = [each["metadata"] for each in kubectl.list("jobs", chosen)]
    return [each["name"] for each in jobs if "deletionTimestamp" not in each]


def runs(kubectl: Kubectl, name: str) -> bool:
    pods = training_pods(kubectl, name)
    return bool(pods) and all(each["status"]["phase"] == "Running" for each in pods)


def finish(kubectl: Kubectl, name: str) -> None:
    """Let the played training end, and wait until it is known."""
    kubectl.run("exec", "loader", "--", "touch", f"/adapters/finish-{name}")
    kubectl.wait(f"finetunejob/{name}", "Succeeded", 90)


def has_left(kubectl: Kubectl, file: str) -> bool:
    """Whether the played trainer left this file, which says how far it came."""
    return file in kubectl.run("exec", "loader", "--", "ls", "/adapters").split()


def annotate(kubectl: Kubectl, name: str, **annotations: str) -> None:
    pairs = [f"{key}={value}" for key, value in annotations.items()]
    kubectl.run("annotate", "--overwrite", "finetunejob", name, *pairs)


def own_name(kubectl: Kubectl) -> str:
    return kubectl.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")


def test_training_waits_until_somebody_approved_exactly_this_data(team: Kubectl) -> None:
    dataset = {"uri": "pvc://library/any.jsonl", "review": {"required": True}}
    team.apply(finetunejob("reviewed", dataset=dataset))
    job = until_state(team, "reviewed", "AwaitingReview")
    digest, me = job["status"]["dataset"]["digest"], own_name(team)
    assert job["status"]["review"]["page"].endswith("/review.html")
    assert f"{DATA}={digest}" in conditions(job)["Reviewed"]["message"]
    assert training_jobs(team, "reviewed") == []

    annotate(team, "reviewed", **{DATA: "sha256:" + "b" * 64, BY: me})
    told = until(lambda: _reviewed(team).get("reason") == "OtherDataApproved" and _reviewed(team))
    assert "but the data is" in told["message"]
    assert training_jobs(team, "reviewed") == []

    annotate(team, "reviewed", **{DATA: digest, BY: me})
    team.wait("finetunejob/reviewed", "Reviewed", 30)
    finish(team, "reviewed")
    review = team.get("finetunejob", "reviewed")["status"]["review"]
    assert (review["approvedBy"], review["approvedDigest"]) == (me, digest)
    assert review["approvedAt"]


def _reviewed(kubectl: Kubectl) -> Object:
    return conditions(kubectl.get("finetunejob", "reviewed"))["Reviewed"]


def test_nobody_approves_in_another_ones_name(team: Kubectl) -> None:
    job = finetunejob("signed", suspend=True)
    team.apply(job)
    me = own_name(team)
    for wrong in (
        {DATA: "sha256:1", BY: "somebody-else"},
        {DATA: "sha256:1"},
        {BY: "somebody-else"},
    ):
        with pytest.raises(KubectlError, match="approved in one's own name"):
            annotate(team, "signed", **wrong)
    with pytest.raises(KubectlError, match=f"tunesmith.dev/approved-by to {me}"):
        annotate(team, "signed", **{DATA: "sha256:1"})
    annotate(team, "signed", **{DATA: "sha256:1", BY: me})
    with pytest.raises(KubectlError, match="approved in one's own name"):
        annotate(team, "signed", **{BY: "somebody-else"})
    # What else changes is nobody's approval, and an approval may be withdrawn.
    team.run("label", "finetunejob", "signed", "team=support")
    team.run("annotate", "finetunejob", "signed", f"{DATA}-", f"{BY}-")


def test_a_job_is_born_with_no_approval(team: Kubectl) -> None:
    """Else whoever creates it, deletes it and creates it again would approve what is in it."""
    me = own_name(team)
    for approval in ({DATA: "sha256:1", BY: me}, {DATA: "sha256:1"}, {BY: me}):
        job = finetunejob("born", suspend=True)
        job["metadata"]["annotations"] = approval
        with pytest.raises(KubectlError, match="create it without the annotations"):
            team.apply(job)


def test_a_suspended_job_gives_its_pod_back_and_goes_on_as_the_same_attempt(team: Kubectl) -> None:
    team.apply(finetunejob("stops"))
    until(lambda: has_left(team, "trains-stops"))
    set_suspend(team, "finetunejob", "stops", True)
    until(lambda: not training_pods(team, "stops"))
    job = until_state(team, "stops", "Suspended")
    assert conditions(job)["Suspended"]["status"] == "True"
    assert has_left(team, "stopped-stops")
    assert team.get("job", "stops-train-1")["spec"]["suspend"] is True

    set_suspend(team, "finetunejob", "stops", False)
    until(lambda: runs(team, "stops"))
    finish(team, "stops")
    status = team.get("finetunejob", "stops")["status"]
    assert (status["attempt"], status["countedFailures"]) == (1, 0)


def test_a_suspended_job_gives_back_what_its_preflight_uses(team: Kubectl) -> None:
    team.apply(finetunejob("measures", evaluation={"preflight": "Advise"}))
    until(lambda: team.find("evalrun", "measures-preflight"))
    set_suspend(team, "finetunejob", "measures", True)
    until(lambda: not team.find("evalrun", "measures-preflight"))
    until_state(team, "measures", "Suspended")
    set_suspend(team, "finetunejob", "measures", False)
    until(lambda: team.find("evalrun", "measures-preflight"))
    team.run("delete", "finetunejob", "measures")


def test_a_queued_job_runs_when_it_is_admitted_and_not_before(team: Kubectl) -> None:
    """No Kueue is here: the test admits, as Kueue would, by the Job's suspend."""
    team.apply(finetunejob("queued", labels=QUEUE))
    until_state(team, "queued", "Queued")
    job = team.get("job", "queued-train-1")
    assert job["metadata"]["labels"].items() >= QUEUE.items()
    time.sleep(8)
    assert team.get("job", "queued-train-1")["spec"]["suspend"] is True
    assert conditions(team.get("finetunejob", "queued"))["Stalled"]["status"] == "False"

    set_suspend(team, "job", "queued-train-1", False)
    until(lambda: runs(team, "queued"))
    set_suspend(team, "job", "queued-train-1", True)
    until_state(team, "queued", "Queued")
    set_suspend(team, "job", "queued-train-1", False)
    until(lambda: runs(team, "queued"))
    finish(team, "queued")


def test_a_queued_job_that_is_suspended_leaves_the_queue(team: Kubectl) -> None:
    team.apply(finetunejob("leaves", labels=QUEUE))
    until_state(team, "leaves", "Queued")
    set_suspend(team, "finetunejob", "leaves", True)
    until(lambda: training_jobs(team, "leaves") == [])
    until_state(team, "leaves", "Suspended")
    set_suspend(team, "finetunejob", "leaves", False)
    until(lambda: training_jobs(team, "leaves") == ["leaves-train-2"])
    status = until_state(team, "leaves", "Queued")["status"]
    assert status["countedFailures"] == 0
    team.run("delete", "finetunejob", "leaves")


def test_several_pods_find_each_other_and_need_less_memory_from_time_to_time(team: Kubectl) -> None:
    resources = {"gpus": 0, "cpu": "50m", "memory": "256Mi", "nodes": 2}
    team.apply(finetunejob("group", played="OutOfMemory", resources=resources))
    until(lambda: training_jobs(team, "group")[-1:] == ["group-train-3"], 150)
    until(lambda: len(training_pods(team, "group")) >= 2 and runs_now(team, "group-train-3"), 60)
    finish(team, "group")
    status = team.get("finetunejob", "group")["status"]
    assert (status["attempt"], status["countedFailures"]) == (3, 2)
    assert (status["plan"]["microBatchSize"], status["plan"]["gradientAccumulation"]) == (1, 8)
    services = [each["metadata"]["name"] for each in team.list("services")]
    assert "group-train-3" in services
    assert "group-train-1" not in services


def runs_now(kubectl: Kubectl, job: str) -> bool:
    pods = kubectl.list("pods", f"batch.kubernetes.io/job-name={job}")
    return len(pods) == 2 and all(each["status"]["phase"] == "Running" for each in pods)


def test_a_job_that_is_done_goes_when_its_time_to_live_is_over(team: Kubectl) -> None:
    """It does not fit, so it is done at once."""
    team.apply(finetunejob("short-lived", played="DoesNotFit", ttlSecondsAfterFinished=600))
    job = until_state(team, "short-lived", "Failed")
    assert conditions(job)["Finished"]["status"] == "True"
    assert "no other follows" in conditions(job)["Prepared"]["message"]
    assert training_jobs(team, "short-lived") == []
    patch = json.dumps({"spec": {"ttlSecondsAfterFinished": 1}})
    team.run("patch", "finetunejob", "short-lived", "--type=merge", "-p", patch)
    until(lambda: team.find("finetunejob", "short-lived") is None, 30)
    until(lambda: team.find("job", "short-lived-prepare-1") is None, 30)
