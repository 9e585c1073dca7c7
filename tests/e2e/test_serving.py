"""Everything that happens to a served endpoint in its life, under a steady load.

The tests are the steps of one story and build on each other, in this order. The last ones judge
what the load saw: no request may have failed, and every answer must be that of the named model,
by its first token's log-probabilities against those that transformers and PEFT give.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from examples.demo import chain
from examples.demo.kubectl import Kubectl, KubectlError, Object
from tests.serving.adapters import Recipe, Spoil
from tests.serving.load import Load, nearest, wrong
from tests.serving.stage import (
    BASE_URI,
    PROMPT,
    Made,
    Stage,
    install_operator,
    restarts,
    served,
)

NAME = "hot"
SERVER = {"maxLoras": 8, "maxLoraRank": 16, "maxCpuLoras": 64}
#: What a user may expect of an adapter that passed, with two replicas.
HOT_SECONDS = 5.0


class Story:
    """What the steps hand on."""

    made: dict[str, Made]
    load: Load
    start_seconds: float
    hot_seconds: float
    load_seconds: float
    proof_seconds: float
    pods: list[str]
    promoted: dict[str, set[str]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    found = Stage.build("serving", tmp_path_factory.mktemp("serving"))
    yield found
    found.kubectl.run("delete", "namespace", "serving", "--wait=false")


@pytest.fixture(scope="module")
def story(stage: Stage) -> Iterator[Story]:
    """Base and two adapters are served, and asked from here to the end."""
    story = Story()
    story.made = stage.put(
        {
            "alpha-1": ("alpha", Recipe(1)),
            "alpha-2": ("alpha", Recipe(2)),
            "beta": ("beta", Recipe(3)),
            "gamma": ("gamma", Recipe(4, rank=16)),
            "delta": ("delta", Recipe(5)),
            **{
                f"bad-{spoil}": (f"bad-{spoil}", Recipe(6, spoil=spoil))
                for spoil in Spoil
                if spoil is not Spoil.NOTHING
            },
        }
    )
    entries = [story.made[each].entry() for each in ("alpha-1", "beta")]
    stage.serve(NAME, entries, server=SERVER)
    story.start_seconds = stage.until_ready(NAME, 400)
    story.promoted = {
        "alpha": {story.made["alpha-1"].model, story.made["alpha-2"].model},
        "beta": {story.made["beta"].model},
        "gamma": {story.made["gamma"].model},
    }
    names = [chain.MODEL_NAME, "alpha", "beta"]
    with Load(stage.address(NAME), PROMPT, names) as story.load:
        yield story


def named(story: Story, *keys: str) -> Object:
    return {"adapters": {"named": [story.made[each].entry() for each in keys]}}


def test_an_adapter_joins_without_a_restart(stage: Stage, story: Story) -> None:
    stage.patch(NAME, named(story, "alpha-1", "beta", "gamma"))
    story.hot_seconds = stage.until_ready(NAME, 60)
    story.load.names.append("gamma")
    (pod,) = stage.pods(NAME)
    assert restarts(pod) == 0
    report = json.loads(in_pod(stage, pod, "sidecar", REPORT))
    (told,) = [each for each in report["adapters"] if each["model"] == story.made["gamma"].model]
    story.load_seconds, story.proof_seconds = told["loadSeconds"], told["seconds"]
    time.sleep(5)


def test_eight_bad_adapters_are_told_apart_and_touch_nothing(stage: Stage, story: Story) -> None:
    bad = [key for key in story.made if key.startswith("bad-")]
    stage.patch(NAME, named(story, "alpha-1", "beta", "gamma", *bad))

    def all_told(status: Object) -> bool:
        errors = [served(status, story.made[each].model).get("lastError") for each in bad]
        return all(errors) and status.get("state") == "Degraded"

    stage.until(NAME, 60, all_told)
    status = stage.status(NAME)
    told = {key: served(status, story.made[key].model)["lastError"].split(":")[0] for key in bad}
    assert told == {
        "bad-wrong-shape": "WrongShape",
        "bad-not-a-number": "NotFinite",
        "bad-dora": "DoraNotServable",
        "bad-rank-too-large": "RankTooLarge",
        "bad-missing-file": "NotFound",
        "bad-wrong-base": "UnknownModule",
        "bad-truncated": "WeightsUnreadable",
    }
    for good in ("alpha-1", "beta", "gamma"):
        assert served(status, story.made[good].model)["replicasReady"] == 1
    events = stage.kubectl.list("events")
    assert any(
        each["involvedObject"]["name"] == NAME and "bad-" in each["message"] for each in events
    )
    stage.patch(NAME, named(story, "alpha-1", "beta", "gamma"))
    stage.until_ready(NAME, 60)


def test_a_pod_that_starts_with_a_bad_adapter_starts(stage: Stage, story: Story) -> None:
    """The second replica comes up while a bad adapter is named, and takes it no worse."""
    keys = ("alpha-1", "beta", "gamma", "bad-not-a-number")
    stage.patch(NAME, {**named(story, *keys), "replicas": 2})

    def two_serve(status: Object) -> bool:
        ready = [served(status, story.made[each].model).get("replicasReady") for each in keys]
        return ready == [2, 2, 2, 0]

    stage.until(NAME, 400, two_serve)
    stage.patch(NAME, named(story, "alpha-1", "beta", "gamma"))
    stage.until_ready(NAME, 60)


def test_a_verdict_is_served_by_two_replicas_within_seconds(stage: Stage, story: Story) -> None:
    """A gated adapter waits for its verdict. From the verdict on, it is a matter of seconds."""
    delta = story.made["delta"]
    entries = [story.made[each].entry() for each in ("alpha-1", "beta", "gamma")]
    stage.patch(NAME, {"adapters": {"named": [*entries, delta.entry(gate="Passed")]}})
    stage.until(
        NAME, 30, lambda status: status.get("notServed", [{}])[0].get("reason") == "NotEvaluated"
    )
    # Two cores are too few to time this beside the load.
    story.load.resting.set()
    stage.kubectl.apply(evaluation(delta))
    stage.kubectl.apply(questions())
    stage.kubectl.wait("evalrun/delta", "Passed", 400)
    seconds = stage.until(
        NAME, 60, lambda status: served(status, delta.model).get("replicasReady") == 2
    )
    story.load.resting.clear()
    run = stage.kubectl.get("evalrun", "delta")
    assert served(stage.status(NAME), delta.model)["evaluatedBy"] == "delta"
    assert run["status"]["adapterDigest"] == delta.digest
    assert seconds < HOT_SECONDS
    print(f"verdict to served by two replicas: {seconds:.2f} s")


def evaluation(made: Made) -> Object:
    """A real verdict on random weights: they may be as bad as they like."""
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "EvalRun",
        "metadata": {"name": made.name},
        "spec": {
            "baseModel": {"uri": BASE_URI},
            "adapter": {"uri": f"pvc://adapters/{made.folder}", "digest": made.digest},
            "suites": [
                {
                    "name": "few",
                    "dataset": {"uri": "configmap://questions/rows.jsonl"},
                    "metric": "TokenF1",
                    "maxNewTokens": 4,
                }
            ],
            "gates": [{"suite": "few", "minimumDifference": -100, "onInconclusive": "Pass"}],
            "resources": {"gpus": 0, "cpu": "700m", "memory": "4Gi"},
        },
    }


def questions() -> Object:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {number} and {number}?"},
                {"role": "assistant", "content": f"It is {2 * number}."},
            ]
        }
        for number in range(4)
    ]
    text = "\n".join(json.dumps(each) for each in rows)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "questions"},
        "data": {"rows.jsonl": text},
    }


def test_a_new_version_takes_over_the_name(stage: Stage, story: Story) -> None:
    new = story.made["alpha-2"]
    stage.patch(NAME, named(story, "alpha-1", "alpha-2", "beta", "gamma"))
    stage.until(NAME, 60, lambda status: served(status, new.model).get("state") == "Promoted")
    stage.until_ready(NAME, 60)
    old = served(stage.status(NAME), story.made["alpha-1"].model)
    assert (old["state"], old["weight"]) == ("Standby", 0)
    asked_at = time.time()
    time.sleep(15)
    later = [each for each in story.load.answers if each.asked_at > asked_at + 2]
    assert {each.model for each in later if each.asked == "alpha"} == {new.model}


def test_an_adapter_that_retires_is_unloaded_everywhere(stage: Stage, story: Story) -> None:
    story.load.names.remove("beta")
    time.sleep(6)
    stage.patch(NAME, named(story, "alpha-2", "gamma"))
    stage.until_ready(NAME, 60)
    assert not served(stage.status(NAME), story.made["beta"].model)
    deadline = time.monotonic() + 10
    held = [in_pod(stage, each, "main", MODELS) for each in stage.pods(NAME)]
    while any("beta" in each for each in held) and time.monotonic() < deadline:
        time.sleep(0.5)
        held = [in_pod(stage, each, "main", MODELS) for each in stage.pods(NAME)]
    assert not any("beta" in each for each in held)
    assert all("gamma" in each for each in held)


def fetching(url: str) -> str:
    """A program that prints what an address of its pod answers."""
    return f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{url}').read().decode())"


MODELS = fetching("8001/v1/models")
REPORT = fetching("9401/report")


def in_pod(stage: Stage, pod: Object, container: str, program: str) -> str:
    name = pod["metadata"]["name"]
    return stage.kubectl.run("exec", name, "-c", container, "--", "python3", "-c", program)


END_THE_SIDECAR = """
import os, signal
for each in filter(str.isdigit, os.listdir('/proc')):
    words = open(f'/proc/{each}/cmdline').read().split(chr(0))
    if words[1:3] == ['-m', 'tunesmith.sidecar']:
        os.kill(int(each), signal.SIGKILL)
"""


def test_the_sidecar_may_die(stage: Stage, story: Story) -> None:
    for pod in stage.pods(NAME):
        in_pod(stage, pod, "sidecar", END_THE_SIDECAR)
    time.sleep(4)
    stage.until_ready(NAME, 60)
    # Killed with its container it makes the pod unready for a moment: the other one answers.
    first = stage.pods(NAME)[0]["metadata"]["name"]
    with pytest.raises(KubectlError):
        stage.kubectl.run(
            "exec", first, "-c", "sidecar", "--", "sh", "-c", "kill -9 -1; kill -9 1; exit 1"
        )
    time.sleep(4)
    stage.until_ready(NAME, 60)


def test_a_pod_may_be_deleted(stage: Stage, story: Story) -> None:
    gone = stage.pods(NAME)[0]["metadata"]["name"]
    stage.kubectl.run("delete", "pod", gone, "--wait=false")
    stage.until(NAME, 30, lambda status: status.get("state") != "Ready")
    stage.until_ready(NAME, 400)
    assert gone not in [each["metadata"]["name"] for each in stage.pods(NAME)]


def test_the_operator_may_be_upgraded(stage: Stage, story: Story) -> None:
    """A chart with another image of the operator replaces the operator, and no serving pod."""
    before = sorted(each["metadata"]["name"] for each in stage.pods(NAME))
    install_operator("tunesmith.dev/operator-next:dev")
    try:
        stage.kubectl.run("annotate", "adapterdeployment", NAME, "touched=now", "--overwrite")
        time.sleep(10)
        stage.until_ready(NAME, 60)
        after = sorted(each["metadata"]["name"] for each in stage.pods(NAME))
        assert after == before
    finally:
        install_operator("tunesmith.dev/operator:dev")


def test_it_scales_down_as_kubectl_says(stage: Stage, story: Story) -> None:
    stage.kubectl.run("scale", "adapterdeployment", NAME, "--replicas=1")
    stage.until(NAME, 60, lambda status: status.get("readyReplicas") == 1)
    stage.until_ready(NAME, 60)
    # Requests that the leaving pod still had are answered.
    time.sleep(15)


def test_vllm_was_never_restarted(stage: Stage, story: Story) -> None:
    assert [restarts(each) for each in stage.pods(NAME)] == [0]


def test_no_request_failed(stage: Stage, story: Story) -> None:
    answers = list(story.load.answers)
    failed = [each for each in answers if each.status != 200]
    assert failed == []
    by_name = {
        name: sum(each.asked == name for each in answers) for name in (chain.MODEL_NAME, "alpha")
    }
    assert min(by_name.values()) > 50
    print(f"{len(answers)} requests, none failed: {by_name}")


def test_every_answer_came_from_the_model_that_was_named(stage: Stage, story: Story) -> None:
    assert wrong(list(story.load.answers), stage.references, story.promoted) == []
    # The judge can tell them apart: by the answers of another model every one would be wrong.
    some = next(each for each in story.load.answers if each.asked == "gamma")
    others = {name: each for name, each in stage.references.items() if name != some.model}
    assert nearest(some.first_token, others)[1] > 0.7


def test_a_hot_load_is_a_hundred_times_faster_than_a_start(story: Story) -> None:
    print(
        f"from pod to ready {story.start_seconds:.1f} s; hot: loading {story.load_seconds:.3f} s, "
        f"with pre-flight and proof {story.proof_seconds:.2f} s, from kubectl patch to Ready "
        f"{story.hot_seconds:.2f} s"
    )
    assert story.start_seconds > 100 * story.load_seconds


def test_tenants_cannot_reach_what_is_not_theirs(stage: Stage, story: Story) -> None:
    (pod,) = stage.pods(NAME)
    program = KNOCK.replace("ADDRESS", pod["status"]["podIP"])
    answer = stage.kubectl.run("exec", "loader", "--", "python3", "-c", program)
    assert answer.split() == ["404", "404", "URLError", "URLError"]


KNOCK = """
import urllib.error, urllib.request
def knock(where, body=None):
    request = urllib.request.Request(f'http://ADDRESS:{where}', body)
    try:
        return urllib.request.urlopen(request, timeout=9).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__
print(knock('8000/v1/load_lora_adapter', b'{}'), knock('8000/v1/unload_lora_adapter', b'{}'))
print(knock('8001/v1/models'), knock('8002/state'))
"""


def test_the_operator_needed_no_more_than_a_hint(stage: Stage, story: Story) -> None:
    """Nothing was made twice, and nothing is left of what was tried."""
    deployments = Kubectl("serving").list("deployments")
    assert [each["metadata"]["name"] for each in deployments] == [f"{NAME}-vllm"]
