"""One finetune.yaml in, a served adapter out, although the operator dies three times on the way.

The tests are the steps of one run and build on each other, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo import chain
from examples.demo.kubectl import Kubectl, Object, conditions
from tests.e2e.chain.conftest import NAMESPACE, until
from tests.e2e.quick_start import Walk, answer_of

OPERATOR = "app.kubernetes.io/component=operator"
PREFLIGHT_SECONDS = 600
TRAINING_SECONDS = 900
SERVING_SECONDS = 420


def kill_operator() -> None:
    system = Kubectl("tunesmith-system")
    system.run("delete", "pod", "-l", OPERATOR, "--grace-period=0", "--force", "--wait=false")


def job_in_state(kubectl: Kubectl, *states: str) -> Object | None:
    job = kubectl.get("finetunejob", chain.JOB)
    state = job.get("status", {}).get("state")
    assert state not in ("Failed", "Rejected"), json.dumps(job["status"], indent=1)
    return job if state in states else None


def test_the_base_model_is_asked_before_anything_is_trained(applied: Kubectl) -> None:
    def advised() -> Object | None:
        job = applied.get("finetunejob", chain.JOB)
        return job if "preflight" in job.get("status", {}) else None

    job = until(PREFLIGHT_SECONDS, advised)
    found = conditions(job)["Preflight"]
    assert (found["status"], found["reason"]) == ("False", "BelowBand")
    preflight = job["status"]["preflight"]
    assert max(preflight["base"], preflight.get("promptedBase", 0)) < 70
    asked = applied.get("evalrun", preflight["name"])["status"]["completionTime"]
    for each in applied.list("jobs"):
        if "-train-" in each["metadata"]["name"]:
            assert each["metadata"]["creationTimestamp"] >= asked


def test_training_survives_the_operator(applied: Kubectl) -> None:
    def training() -> Object | None:
        job = job_in_state(applied, "Training")
        return job if job and job["status"].get("progress", {}).get("step") else None

    until(TRAINING_SECONDS, training)
    kill_operator()
    applied.wait(f"finetunejob/{chain.JOB}", "Succeeded", TRAINING_SECONDS)


def test_evaluation_survives_the_operator(applied: Kubectl) -> None:
    def under_way() -> Object | None:
        name = applied.get("finetunejob", chain.JOB)["status"].get("evaluation", {}).get("name")
        run = applied.find("evalrun", name) if name else None
        return run if run and run.get("status", {}).get("state") == "Running" else None

    run = until(120, under_way)
    kill_operator()
    applied.wait(f"evalrun/{run['metadata']['name']}", "Succeeded", TRAINING_SECONDS)
    applied.wait(f"evalrun/{run['metadata']['name']}", "Passed", 30)
    applied.wait(f"finetunejob/{chain.JOB}", "Ready", 30)


def test_joining_survives_the_operator(applied: Kubectl) -> None:
    """The verdict has just fallen: the adapter is being loaded, or is about to be."""
    kill_operator()

    def serving_it() -> Object | None:
        deployment = applied.get("adapterdeployment", chain.DEPLOYMENT)
        ready = conditions(deployment)["Ready"]["status"] == "True"
        named = deployment["status"].get("adapterCount") == 1
        return deployment if named and ready else None

    deployment = until(SERVING_SECONDS, serving_it)
    (served,) = deployment["status"]["adapters"]
    assert served["evaluatedBy"]
    assert (served["replicasReady"], served["replicasWanted"]) == (1, 1)


def test_no_serving_pod_was_restarted_for_it(applied: Kubectl) -> None:
    """One pod, from before the adapter was trained."""
    deployments = [each["metadata"]["name"] for each in applied.list("replicasets")]
    assert len(deployments) == 1
    (pod,) = applied.list("pods", "tunesmith.dev/serves=adapters")
    assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0]


def test_nothing_was_done_twice(applied: Kubectl) -> None:
    jobs = applied.list("jobs")
    for stage in ("prepare", "train"):
        assert len([each for each in jobs if f"-{stage}-" in each["metadata"]["name"]]) == 1
    runs = [each["metadata"]["name"] for each in applied.list("evalruns")]
    assert len(runs) == 2, "one before training, one after it"
    for run in runs:
        assert [each for each in jobs if each["metadata"]["name"].startswith(f"{run}-eval-")]
    assert len([each for each in jobs if "-eval-" in each["metadata"]["name"]]) == 2
    job = applied.get("finetunejob", chain.JOB)
    assert job["status"]["attempt"] == 1
    artifact = job["status"]["artifact"]
    folder = f"/adapters/{NAMESPACE}/{chain.JOB}/{job['metadata']['uid']}"
    found = applied.run(
        "exec", "loader", "--", "find", folder, "-name", "adapter_model.safetensors"
    )
    assert found.split() == [
        f"/adapters/{artifact['uri'].removeprefix('pvc://adapters/')}/adapter_model.safetensors"
    ]


def test_the_verdict_is_won_on_its_merits(applied: Kubectl) -> None:
    job = applied.get("finetunejob", chain.JOB)["status"]
    run = applied.get("evalrun", job["evaluation"]["name"])["status"]
    (result,) = run["results"]
    assert run["verdict"] == "Passed"
    assert run["adapterDigest"] == job["artifact"]["digest"]
    assert result["confidenceInterval"]["lower"] > 0
    hardest = max(result["base"], result.get("promptedBase", 0))
    assert result["difference"] == pytest.approx(result["adapter"] - hardest, abs=0.02)
    assert result["items"] >= 40


def test_the_base_model_was_not_asked_twice(applied: Kubectl) -> None:
    """What it answered before training stood in the claim, and was not made again."""
    job = applied.get("finetunejob", chain.JOB)["status"]
    runs = (job["preflight"]["name"], job["evaluation"]["name"])
    before, after = (applied.get("evalrun", name)["status"]["results"][0] for name in runs)
    assert (before["base"], before["asked"]) == (after["base"], after["asked"])
    folder = f"/adapters/{NAMESPACE}/base-results"
    kept = applied.run(
        "exec",
        "loader",
        "--",
        "find",
        folder,
        "-name",
        "*.jsonl",
        "-newermt",
        applied.get("evalrun", runs[1])["status"]["startTime"],
    )
    assert kept == "", "the second run wrote base answers"


@pytest.fixture(scope="module")
def endpoint(applied: Kubectl) -> Iterator[str]:
    with applied.port_forward(f"service/{chain.DEPLOYMENT}-vllm", 80) as address:
        yield address


def test_base_and_adapter_answer_under_their_own_names(applied: Kubectl, endpoint: str) -> None:
    names = sorted(chain.models(endpoint))
    assert [each for each in names if "@" not in each] == [chain.JOB, chain.MODEL_NAME]
    assert len([each for each in names if each.startswith(f"{chain.JOB}@")]) == 1
    questions = chain.held_out(applied, 8)
    scores = {
        name: sum(
            fields_right(chain.ask(endpoint, name, each), each.expected) for each in questions
        )
        for name in (chain.JOB, chain.MODEL_NAME)
    }
    assert scores[chain.JOB] > scores[chain.MODEL_NAME] + 2


def fields_right(answer: str, expected: str) -> float:
    """Share of the expected fields that the answer has right."""
    wanted: dict[str, Any] = json.loads(expected)
    try:
        given = json.loads(answer)
    except ValueError:
        return 0.0
    if not isinstance(given, dict):
        return 0.0
    right = [key for key, value in wanted.items() if given.get(key) == value]
    return len(right) / len(wanted)


def test_kubectl_get_tells_the_story(applied: Kubectl) -> None:
    job = applied.run("get", "finetunejobs")
    assert "STATE" in job
    assert "Ready" in job
    assert "Passed" in job
    assert "Passed" in applied.run("get", "evalruns")
    assert f"http://packaging-vllm.{NAMESPACE}.svc/v1" in applied.run("get", "adapterdeployments")


def test_the_quick_start_ends_with_an_answer(applied: Kubectl, walk: Walk) -> None:
    """Its last commands, after the first ones have brought everything here so far."""
    told = walk.take("wait", "verdict")
    assert "Passed" in told
    answer = answer_of(walk.take("ask"))
    assert answer["model"].startswith(f"{chain.JOB}@")
    said = json.loads(answer["choices"][0]["message"]["content"])
    assert said["name"] == "cowsay"
