"""Serving on this machine's CPU, in the development cluster: `make bench-serving`.

Three comparisons, each within this one run: adapter serving and merged weights against the base
model; a hot load against a start; and a server with a thousand adapters against itself with a few.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import aiohttp

from examples.demo import chain
from examples.demo.kubectl import Object
from tests.bench.closed_loop import Shape, closed_loop
from tests.bench.results import Figure, tell
from tests.serving.adapters import Recipe
from tests.serving.load import ask
from tests.serving.stage import PROMPT, Made, Stage, served

SHAPE = Shape(requests=48, at_once=4, prompt_tokens=64, answer_tokens=32)
#: Rounds in turn, so that a slow moment of the machine meets all sides.
ROUNDS = 3
MANY = 1000
#: Fewer than there are: most answers need an adapter that is read from its files again.
IN_MEMORY = 200
ASKED_COLD = 60


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        stage = Stage.build("bench-serving", Path(work))
        try:
            figures = [*thousand(stage), *strategies(stage), *hot_load(stage)]
        finally:
            stage.kubectl.run("delete", "namespace", "bench-serving", "--wait=false")
    if not tell("serving", figures):
        raise SystemExit("a bound is not kept")


def say(text: str) -> None:
    print(f"    {text}", flush=True)


# --- adapters, merged weights, base --------------------------------------------------------------


def strategies(stage: Stage) -> list[Figure]:
    made = stage.put({"tuned": ("tuned", Recipe(1, rank=16, projections=ALL))})["tuned"]
    say("starting a server with the adapter, and one with merged weights")
    stage.serve("beside", [made.entry()], server={"maxLoras": 1, "maxLoraRank": 16})
    stage.until_ready("beside", 600)
    stage.serve("merged", [made.entry()], strategy="Merged")
    stage.until_ready("merged", 900)
    sides = {
        "base": (stage.address("beside"), chain.MODEL_NAME),
        "adapter": (stage.address("beside"), "tuned"),
        "merged": (stage.address("merged"), "tuned"),
    }
    found: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(ROUNDS):
        for side, (address, model) in sides.items():
            outcome = asyncio.run(closed_loop(address, [model], SHAPE, seed=number))
            if outcome.failures:
                raise SystemExit(f"{side}: {outcome.failures[:3]}")
            found[side].append(outcome.tokens_per_second)
            say(f"{side}: {outcome.tokens_per_second:.1f} tokens/s")
    stage.kubectl.run("delete", "adapterdeployment", "merged")
    median = {side: statistics.median(values) for side, values in found.items()}
    return [
        *(Figure(f"{side}, 4 at once", value, "tok/s") for side, value in median.items()),
        Figure("adapter over base", median["adapter"] / median["base"], "x"),
        Figure("merged over base", median["merged"] / median["base"], "x", ">= 0.9"),
        Figure("merged over adapter", median["merged"] / median["adapter"], "x", ">= 1"),
    ]


ALL = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


# --- hot load against a start --------------------------------------------------------------------


def hot_load(stage: Stage) -> list[Figure]:
    """Five adapters join one after the other, then the pod is replaced."""
    tuned = json.loads(stage.kubectl.run("get", "adp", "beside", "-o", "json"))
    entries: list[Object] = tuned["spec"]["adapters"]["named"]
    joining = stage.put({f"more-{n}": (f"more-{n}", Recipe(n + 10)) for n in range(5)})
    loads, whole, patched = [], [], []
    for made in joining.values():
        entries.append(made.entry())
        began = time.monotonic()
        stage.patch("beside", {"adapters": {"named": entries}})
        stage.until("beside", 60, partial(_ready, made))
        patched.append(time.monotonic() - began)
        told = next(each for each in report(stage)["adapters"] if each["model"] == made.model)
        loads.append(told["loadSeconds"])
        whole.append(told["seconds"])
        say(f"{made.name}: loaded in {loads[-1]:.3f} s, proven after {whole[-1]:.2f} s")
    (pod,) = stage.pods("beside")
    stage.kubectl.run("delete", "pod", pod["metadata"]["name"], "--wait=false")
    began = time.monotonic()
    stage.until("beside", 60, lambda status: status.get("state") != "Ready")
    stage.until_ready("beside", 600)
    start = time.monotonic() - began
    say(f"a new pod was ready after {start:.1f} s")
    load = statistics.median(loads)
    return [
        Figure("hot load: vLLM's loading, median", load, "s"),
        Figure("hot load: pre-flight to proof, median", statistics.median(whole), "s"),
        Figure("hot load: kubectl patch to Ready, median", statistics.median(patched), "s", "< 5"),
        Figure("pod deleted to new pod Ready", start, "s"),
        Figure("start over hot load", start / load, "x", ">= 100"),
    ]


def _ready(made: Made, status: Object) -> bool:
    return bool(served(status, made.model).get("replicasReady") == 1)


def report(stage: Stage) -> Object:
    (pod,) = stage.pods("beside")
    program = (
        "import urllib.request as r; "
        "print(r.urlopen('http://127.0.0.1:9401/report').read().decode())"
    )
    name = pod["metadata"]["name"]
    return dict(
        json.loads(stage.kubectl.run("exec", name, "-c", "sidecar", "--", "python3", "-c", program))
    )


# --- a thousand adapters -------------------------------------------------------------------------


def thousand(stage: Stage) -> list[Figure]:
    say(f"writing {MANY} adapters")
    few = {"layers": None, "rank": 4, "projections": ("self_attn.q_proj",), "strength": 2.0}
    recipes = {f"m{n:04}": (f"m{n:04}", Recipe(n + 100, **few)) for n in range(MANY)}  # type: ignore[arg-type]
    made = stage.put_many(recipes)
    server = {"maxLoras": 4, "maxLoraRank": 8, "maxCpuLoras": IN_MEMORY}
    say("starting a server with 4 of them")
    stage.serve("many", [each.entry() for each in list(made.values())[:4]], server=server)
    stage.until_ready("many", 600)
    small = memory(stage)
    say(f"adding the other {MANY - 4} while it runs")
    began = time.monotonic()
    stage.patch("many", {"adapters": {"named": [each.entry() for each in made.values()]}})
    stage.until("many", 1200, lambda status: _all_ready(status, MANY), pause=3)
    joined = time.monotonic() - began
    say(f"all {MANY} are served after {joined:.0f} s")
    cold = asyncio.run(first_answers(stage, list(made.values())))
    say("asking every one of them")
    wrong = asyncio.run(everyone(stage, list(made.values())))
    (pod,) = stage.pods("many")
    large = memory(stage)
    stage.kubectl.run("delete", "adapterdeployment", "many")
    return [
        Figure(f"{MANY} adapters join a running server", joined, "s"),
        Figure(f"of {MANY} adapters, failed or wrong answers", wrong, "", "== 0"),
        Figure("memory of the pod with 4 adapters", small / 2**30, "GiB"),
        Figure(f"memory of the pod with {MANY}, {IN_MEMORY} kept", large / 2**30, "GiB"),
        Figure("first answer of an adapter at random, median", statistics.median(cold), "s"),
        Figure("first answer of an adapter at random, worst", max(cold), "s"),
        Figure("starts of vLLM", pod_starts(pod), "", "== 1"),
    ]


def _all_ready(status: Object, count: int) -> bool:
    ready = [each for each in status.get("adapters", []) if each["replicasReady"] == 1]
    return len(ready) == count


async def first_answers(stage: Stage, made: list[Made]) -> list[float]:
    chosen = random.Random(0).sample(made, ASKED_COLD)
    async with aiohttp.ClientSession() as session:
        answers = [
            await ask(session, stage.address("many"), each.name, PROMPT, 1) for each in chosen
        ]
    return [each.seconds for each in answers]


async def everyone(stage: Stage, made: list[Made]) -> int:
    """Requests that failed, or that another version answered."""
    address = stage.address("many")
    async with aiohttp.ClientSession() as session:
        limit = asyncio.Semaphore(4)

        async def one(each: Made) -> bool:
            async with limit:
                answer = await ask(session, address, each.name, PROMPT, 1)
                return answer.status == 200 and answer.model == each.model

        right = await asyncio.gather(*(one(each) for each in made))
    return right.count(False)


def memory(stage: Stage) -> float:
    """Working set of the serving pod in bytes, as the kubelet sees it."""
    (pod,) = stage.pods("many")
    node = pod["spec"]["nodeName"]
    text = stage.kubectl.run("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")
    for each in json.loads(text)["pods"]:
        if each["podRef"]["name"] == pod["metadata"]["name"]:
            return float(each["memory"]["workingSetBytes"])
    raise SystemExit("the kubelet does not know the pod")


def pod_starts(pod: Object) -> int:
    return 1 + sum(
        int(each["restartCount"])
        for each in pod["status"]["containerStatuses"]
        if each["name"] == "main"
    )


if __name__ == "__main__":
    main()
