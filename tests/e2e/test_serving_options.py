"""Other ways to serve: merged weights; keys, canary and a base model of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator

import aiohttp
import pytest

from examples.demo import chain
from examples.demo.kubectl import Object, conditions
from tests.serving.adapters import Recipe
from tests.serving.load import TOLERANCE, ask, nearest
from tests.serving.stage import PROMPT, Made, Stage, served

SERVER = {"maxLoras": 4, "maxLoraRank": 16, "maxCpuLoras": 16}
CHAT = (sys.executable, "-m", "tunesmith.commandline", "chat")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Merged weights, and everything else at once: both start together."""
    found = Stage.build("serving-options", tmp_path_factory.mktemp("options"))
    yield found
    found.kubectl.run("delete", "namespace", "serving-options", "--wait=false")


@pytest.fixture(scope="module")
def made(stage: Stage) -> dict[str, Made]:
    made = stage.put(
        {
            "tuned": ("tuned", Recipe(21, rank=16)),
            "alpha-1": ("alpha", Recipe(22)),
            "alpha-2": ("alpha", Recipe(23)),
            "secret": ("secret", Recipe(24)),
        }
    )
    stage.serve("merged", [made["tuned"].entry()], strategy="Auto")
    stage.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "clients"},
            "stringData": {"support": "key-of-support", "research": "key-of-research"},
        }
    )
    stage.serve(
        "guarded",
        [made["alpha-1"].entry(), made["secret"].entry()],
        server=SERVER,
        baseReplicas=1,
        access={
            "secretRef": {"name": "clients"},
            "grants": [
                {"client": "support", "models": ["alpha*", chain.MODEL_NAME]},
                {"client": "research", "models": ["*"]},
            ],
        },
    )
    return made


def test_a_single_adapter_is_merged_and_answers_as_base_and_adapter_would(
    stage: Stage, made: dict[str, Made]
) -> None:
    stage.until_ready("merged", 500)
    status = stage.status("merged")
    assert status["server"]["strategy"] == "Merged"
    assert "One adapter" in status["server"]["strategyReason"]
    assert served(status, made["tuned"].model)["replicasReady"] == 1
    answer = asyncio.run(answer_of(stage, "merged", "tuned"))
    whose, distance = nearest(answer[1], stage.references)
    assert (answer[0], whose) == (made["tuned"].model, made["tuned"].model)
    assert distance < TOLERANCE


async def answer_of(
    stage: Stage, deployment: str, model: str, key: str = ""
) -> tuple[str, dict[str, float]]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        answer = await ask(session, stage.address(deployment), model, PROMPT)
    assert answer.status == 200, answer
    return answer.model, answer.first_token


def test_only_clients_with_a_key_are_answered_and_only_what_is_theirs(
    stage: Stage, made: dict[str, Made]
) -> None:
    stage.until_ready("guarded", 500)
    address = stage.address("guarded")
    assert status_of(address, "alpha", "") == 401
    assert status_of(address, "alpha", "key-of-nobody") == 401
    assert status_of(address, "alpha", "key-of-support") == 200
    assert status_of(address, "secret", "key-of-support") == 403
    assert status_of(address, made["secret"].model, "key-of-support") == 403
    assert status_of(address, "secret", "key-of-research") == 200


def status_of(address: str, model: str, key: str) -> int:
    request = urllib.request.Request(
        f"{address}/v1/completions",
        json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1}).encode(),
        {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def test_kubectl_tunesmith_chats_with_a_clients_key(stage: Stage, made: dict[str, Made]) -> None:
    asked = (*CHAT, "guarded/alpha", "-n", stage.kubectl.namespace, "-m", "Hello", "-o", "json")
    refused = subprocess.run(asked, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "--key-secret clients/CLIENT" in refused.stderr
    words = (*asked, "--max-tokens", "8", "--key-secret", "clients/support")
    told = subprocess.run(words, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["answer"]


def test_the_base_model_is_answered_by_pods_of_its_own(stage: Stage, made: dict[str, Made]) -> None:
    before = requests_of_base(stage)
    for _ in range(3):
        assert status_of(stage.address("guarded"), chain.MODEL_NAME, "key-of-support") == 200
    assert requests_of_base(stage) == before + 3


def requests_of_base(stage: Stage) -> float:
    """Requests that ended, by the metrics of the vLLM server of the base model."""
    selector = "tunesmith.dev/adapterdeployment=guarded,tunesmith.dev/serves=base"
    (pod,) = stage.kubectl.list("pods", selector)
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9402/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(
        float(each.rsplit(" ", 1)[1])
        for each in lines
        if each.startswith("vllm:request_success_total{")
    )


def test_a_canary_gets_its_share_and_is_promoted(stage: Stage, made: dict[str, Made]) -> None:
    old, new = made["alpha-1"], made["alpha-2"]
    entries: list[Object] = [old.entry(), new.entry(), made["secret"].entry()]
    canary = {"weight": 40, "minutes": 0.4}
    stage.patch("guarded", {"adapters": {"named": entries, "canary": canary}})
    stage.until("guarded", 60, lambda status: served(status, new.model).get("state") == "Canary")
    time.sleep(2)
    answers = asyncio.run(many_answers(stage, 60))
    assert 8 <= answers[new.model] <= 42
    assert answers[old.model] + answers[new.model] == 60
    stage.until("guarded", 90, lambda status: served(status, new.model).get("state") == "Promoted")
    time.sleep(3)
    assert asyncio.run(many_answers(stage, 10)) == {new.model: 10}


def test_a_pin_rolls_back_at_once(stage: Stage, made: dict[str, Made]) -> None:
    old = made["alpha-1"]
    pins = [{"name": "alpha", "version": old.version}]
    stage.patch("guarded", {"adapters": {"pins": pins}})
    stage.until("guarded", 30, lambda status: served(status, old.model).get("state") == "Promoted")
    stage.until_ready("guarded", 30)
    time.sleep(3)
    assert asyncio.run(many_answers(stage, 10)) == {old.model: 10}


async def many_answers(stage: Stage, count: int) -> Counter[str]:
    headers = {"Authorization": "Bearer key-of-support"}
    async with aiohttp.ClientSession(headers=headers) as session:
        address = stage.address("guarded")
        answers = [await ask(session, address, "alpha", PROMPT, 1) for _ in range(count)]
    assert all(each.status == 200 for each in answers)
    return Counter(each.model for each in answers)


def test_files_of_a_version_that_is_kept_no_longer_are_deleted(
    stage: Stage, made: dict[str, Made]
) -> None:
    old, new = made["alpha-1"], made["alpha-2"]
    rules: Object = {"pins": [], "canary": None, "keepVersions": 0, "deleteFiles": True}
    stage.patch("guarded", {"adapters": rules})
    stage.until("guarded", 60, lambda status: served(status, new.model).get("state") == "Promoted")

    def folders(_: Object) -> list[str]:
        return stage.kubectl.run("exec", "loader", "--", "ls", "/adapters").split()

    stage.until("guarded", 90, lambda status: old.folder not in folders(status), pause=1)
    assert {new.folder, made["secret"].folder} <= set(folders({}))
    stage.until_ready("guarded", 30)
    assert asyncio.run(many_answers(stage, 5)) == {new.model: 5}


def test_what_cannot_be_done_is_said_and_the_rest_goes_on(
    stage: Stage, made: dict[str, Made]
) -> None:
    """There is no KEDA here, and the chart names no Prometheus."""
    stage.patch("guarded", {"autoscaling": {"maxReplicas": 3}})

    def told(_: Object) -> bool:
        found = conditions(stage.kubectl.get("adapterdeployment", "guarded"))
        return found.get("Warning", {}).get("reason") == "PrometheusUnknown"

    stage.until("guarded", 30, told)
    stage.until_ready("guarded", 30)


def test_a_withdrawn_adapter_is_served_no_more(stage: Stage, made: dict[str, Made]) -> None:
    """Merged weights have nothing else to serve."""
    stage.patch("merged", {"strategy": "Merged", "adapters": {"named": []}})
    stage.patch("merged", {"adapters": {"selector": {"matchLabels": {"nobody": "has"}}}})
    stage.until("merged", 60, lambda status: not stage.kubectl.find("deployment", "merged-vllm"))
    ready = conditions(stage.kubectl.get("adapterdeployment", "merged"))["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "NoAdapter")
