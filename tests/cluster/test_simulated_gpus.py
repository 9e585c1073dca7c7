"""What needs GPUs, on simulated nodes: KWOK plays their kubelet, all else is real.

A fake, because no GPU is here: nothing is computed, and how a pod ends is said by its annotations.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.kubectl import Kubectl, KubectlError, Object, conditions
from tests.cluster.manifests import claim
from tests.unit.operator import given

SIMULATION = "simulation.tunesmith.dev"


def devcluster(*arguments: str) -> None:
    subprocess.run(["python3", "-m", "devcluster", *arguments], check=True)


@pytest.fixture
def gpus() -> Iterator[None]:
    """One simulated node with eight GPUs."""
    devcluster("kwok-up", "--nodes", "1")
    yield
    devcluster("kwok-down")


@pytest.fixture
def team(kubectl: Kubectl) -> Kubectl:
    for name in ("models", "data", "adapters"):
        kubectl.apply(claim(name))
    return kubectl


def gpu_job(annotations: dict[str, str], **spec: Any) -> Object:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "on-a-gpu"},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "dataset": {"uri": "pvc://data/rows.jsonl"},
            "output": {"uri": "pvc://adapters"},
            # A simulated pod has nothing to say about a base model.
            "evaluation": {"preflight": "Skip"},
            "podTemplate": {
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "tunesmith.dev/simulated", "operator": "Exists"}],
                "annotations": {f"{SIMULATION}/{key}": value for key, value in annotations.items()},
            },
            **spec,
        },
    }


def until_state(kubectl: Kubectl, *states: str) -> Object:
    deadline = time.monotonic() + 60
    while True:
        job = kubectl.get("finetunejob", "on-a-gpu")
        if job.get("status", {}).get("state") in states:
            return job
        assert time.monotonic() < deadline, job.get("status")
        time.sleep(0.5)


def test_without_a_gpu_the_job_says_what_is_missing_and_goes_on_when_one_comes(
    team: Kubectl, request: pytest.FixtureRequest
) -> None:
    # One last word for the pods of both stages: each is asked for its own part of it.
    both = given.outcome().model_copy(update={"training": given.trained().training})
    team.apply(gpu_job({"message": both.to_line()}))
    stalled = conditions(until_state(team, "Waiting"))["Stalled"]
    assert stalled["reason"] == "Unschedulable"
    assert "No node can take the pod" in stalled["message"]
    request.getfixturevalue("gpus")
    team.wait("finetunejob/on-a-gpu", "Succeeded", 60)
    prepared, pod = (
        team.list("pods", f"tunesmith.dev/finetunejob=on-a-gpu,tunesmith.dev/stage={stage}")[0]
        for stage in ("prepare", "train")
    )
    assert "nvidia.com/gpu" not in prepared["spec"]["containers"][0]["resources"]["limits"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["nodeName"] == "gpu-0"


def test_running_out_of_memory_counts_and_ends_at_the_limit(team: Kubectl, gpus: None) -> None:
    killed = {"exit-code": "137", "reason": "OOMKilled", "only": "train"}
    team.apply(gpu_job({**killed, "message": given.outcome().to_line()}, backoffLimit=1))
    job = until_state(team, "Failed")
    status = job["status"]
    assert (status["attempt"], status["countedFailures"]) == (2, 2)
    assert status["failure"]["class"] == "OutOfMemory"
    assert status["usage"]["attempts"] == 2
    assert status["usage"]["gpuSeconds"] >= 2
    assert status["plan"]["microBatchSize"] == given.memory_plan().micro_batch_size // 2
    assert "lower training.microBatchSize" in conditions(job)["Succeeded"]["message"]
    with pytest.raises(KubectlError):
        team.wait("finetunejob/on-a-gpu", "Succeeded", 1)


def test_a_job_that_is_deleted_takes_its_children_along(team: Kubectl, gpus: None) -> None:
    team.apply(gpu_job({"never-ends": "true"}))
    until_state(team, "Preparing")
    team.run("delete", "finetunejob", "on-a-gpu", "--wait")
    deadline = time.monotonic() + 60
    while team.list("jobs") or team.list("pods"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
