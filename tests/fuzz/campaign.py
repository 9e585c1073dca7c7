"""Bad input against the real API server and the real operator: `make test-fuzz`.

Thousands of objects drawn from the schema are created, most of them refused. Beside them a healthy
tenant works. Then objects come that no schema has seen. The operator must stay the same process,
say something about every object, and keep nobody waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import time
from dataclasses import dataclass

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Object
from tests.bench.results import Figure, tell
from tests.cluster.manifests import claim
from tests.fuzz.admission import AT_ONCE, Fates, throw
from tests.fuzz.api import Api, connected
from tests.fuzz.canary import Canary
from tests.fuzz.objects import fuzzed, poison
from tests.fuzz.older_schema import store, untold, without_rules
from tests.fuzz.operator_watch import OperatorWatch
from tests.fuzz.ruled import Ruled, rule

SEED = 7
#: What an operator that works on one object after the other would never keep.
LONGEST_CANARY_SECONDS = 10.0
TOLD_SECONDS = 30.0
TRAINED_SECONDS = 90.0


@dataclass(frozen=True)
class Size:
    """How many objects. A wave of them exists at a time."""

    objects: int = 10_000
    wave: int = 1_000
    poison: int = 150
    tenants: int = 4
    #: Namespaces that have a fuzzed policy each.
    policies: int = 60
    #: How long nothing is done to the poisoned objects, to see whether they are left alone.
    quiet_seconds: float = 30.0
    #: What waits is looked at again after each pause of the operator, and a server's parts anew.
    most_requests_a_minute: int = 30

    @property
    def namespaces(self) -> list[str]:
        return [f"fuzz-{number}" for number in range(self.tenants)]

    @property
    def ruled_namespaces(self) -> list[str]:
        return [f"fuzz-ruled-{number}" for number in range(self.policies)]


POISONED, CANARY = "fuzz-poisoned", "fuzz-canary"
#: Nothing that is let in may start a real pod: this machine has other things to do.
NO_PODS: Object = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods"},
    "spec": {"hard": {"pods": "0"}},
}


@dataclass
class Poisoned:
    """What became of objects that no schema has seen."""

    stored: int
    untold: list[str]
    quiet_requests: int


def run(size: Size, number: int = SEED) -> list[Figure]:
    """The whole campaign; cleans up behind it. Figures with their bounds."""
    with OperatorWatch() as watch:
        try:
            set_up(size)
            return asyncio.run(_campaign(size, number, watch))
        finally:
            clean_up(size)


def set_up(size: Size) -> None:
    # What an earlier run left may be on its way out.
    clean_up(size, wait=True)
    for name in (*size.namespaces, *size.ruled_namespaces, POISONED):
        create_namespace(name).apply(NO_PODS)
    create_namespace(CANARY).apply(claim("library"))


def clean_up(size: Size, *, wait: bool = False) -> None:
    names = [*size.namespaces, *size.ruled_namespaces, POISONED, CANARY]
    subprocess.run(
        [
            "kubectl",
            "delete",
            "namespace",
            "--ignore-not-found",
            f"--wait={str(wait).lower()}",
            *names,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


async def _campaign(size: Size, number: int, watch: OperatorWatch) -> list[Figure]:
    began = time.monotonic()
    async with connected(2 * AT_ONCE) as api:
        canary, stop = Canary(api, CANARY), asyncio.Event()
        singing = asyncio.create_task(canary.sing(stop))
        try:
            fates = await _waves(api, size, number)
            asked = sum(watch.requests().values())
            ruled = await rule(api, size.ruled_namespaces, number)
            poisoned = await _poisoned(api, size, number, watch)
        finally:
            stop.set()
            await singing
        untrained = await canary.untrained(TRAINED_SECONDS)
    tracebacks = watch.tracebacks()
    for kind, found in (
        ("a server's fault", fates.blunders),
        ("a refusal without a place", fates.vague),
        ("nothing said about", fates.silent),
        *_blamed(ruled),
        ("nothing said about", poisoned.untold),
        ("a canary without an adapter", untrained),
        ("a traceback", tracebacks),
    ):
        for each in found[:3]:
            print(f"{kind}: {each}", flush=True)
    most_log_lines = max(_lines_by_object(watch.log()).values(), default=0)
    return [
        Figure("objects created", fates.created, "objects", f">= {size.objects}"),
        Figure("created per second", fates.per_second, "1/s"),
        Figure("let in by the API server", 100 * fates.admitted_share, "%", ">= 20"),
        Figure("refused by a fault of the server", len(fates.blunders), "objects", "== 0"),
        Figure("refused without naming a field", len(fates.vague), "objects", "== 0"),
        Figure("let in and nothing said", len(fates.silent), "objects", "== 0"),
        Figure("longest until a wave is told", fates.slowest_status, "s", "<= 60"),
        Figure("operator's requests per object let in", asked / max(1, fates.admitted), "requests"),
        Figure("policies created", ruled.policies.created, "policies"),
        Figure("policies let in", 100 * ruled.policies.admitted_share, "%", ">= 20"),
        Figure(
            "good objects let in under them",
            ruled.objects.admitted,
            "objects",
            f">= {size.policies}",
        ),
        Figure(
            "refused there without a reason, or nothing said",
            sum(len(found) for _, found in _blamed(ruled)),
            "objects",
            "== 0",
        ),
        Figure("longest until they are told", ruled.objects.slowest_status, "s", "<= 60"),
        Figure("stored without a schema", poisoned.stored, "objects", f">= {size.poison // 2}"),
        Figure("stored so and nothing said", len(poisoned.untold), "objects", "== 0"),
        Figure(
            "requests per poisoned object and minute, afterwards",
            poisoned.quiet_requests / max(1, poisoned.stored) * 60 / size.quiet_seconds,
            "requests",
            f"<= {size.most_requests_a_minute}",
        ),
        Figure("most log lines about one object", most_log_lines, "lines", "<= 20"),
        Figure("tracebacks in the operator's log", len(tracebacks), "", "== 0"),
        Figure("operator is the same process", float(watch.is_the_same_process), "", "== 1"),
        Figure("healthy jobs beside them", len(canary.delays), "jobs", ">= 3"),
        Figure(
            "longest until a healthy job has its Job",
            max(canary.delays, default=0),
            "s",
            f"<= {LONGEST_CANARY_SECONDS:g}",
        ),
        Figure("healthy jobs without an adapter", len(untrained), "jobs", "== 0"),
        Figure("whole run", time.monotonic() - began, "s"),
    ]


def _blamed(ruled: Ruled) -> list[tuple[str, list[str]]]:
    return [
        ("a server's fault, of policies", ruled.policies.blunders + ruled.objects.blunders),
        ("a refusal without a place, of policies", ruled.policies.vague + ruled.objects.vague),
        ("nothing said under a policy about", ruled.objects.silent),
    ]


async def _waves(api: Api, size: Size, number: int) -> Fates:
    fates = Fates()
    while fates.created < size.objects:
        count = min(size.wave, size.objects - fates.created)
        # Drawn in another thread, as it takes seconds and the healthy tenant goes on.
        objects = await asyncio.to_thread(fuzzed, count, number + fates.created)
        await throw(api, objects, size.namespaces, fates)
        print(
            f"    {fates.created} created, {fates.admitted} let in, "
            f"all told within {fates.slowest_status:.1f} s",
            flush=True,
        )
    return fates


async def _poisoned(api: Api, size: Size, number: int, watch: OperatorWatch) -> Poisoned:
    async with without_rules(api, POISONED):
        stored = await store(api, poison(size.poison, number), POISONED)
    deadline = time.monotonic() + TOLD_SECONDS
    while (left := await untold(api, POISONED, watch.log())) and time.monotonic() < deadline:
        await asyncio.sleep(1)
    before = sum(watch.requests().values())
    await asyncio.sleep(size.quiet_seconds)
    return Poisoned(len(stored), left, sum(watch.requests().values()) - before)


def _lines_by_object(log: str) -> dict[str, int]:
    """How often each object of the strange tenants is named."""
    counts: dict[str, int] = {}
    for line in log.splitlines():
        for word in line.split():
            name = word.rstrip(":")
            if name.startswith("fuzz-") and "/" in name and not name.startswith(CANARY):
                counts[name] = counts.get(name, 0) + 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=Size.objects)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    subprocess.run(["python3", "-m", "devcluster", "kwok-up", "--nodes", "2"], check=True)
    try:
        figures = run(Size(objects=arguments.objects), arguments.seed)
    finally:
        subprocess.run(["python3", "-m", "devcluster", "kwok-down"], check=True)
    if not tell("fuzz", figures):
        raise SystemExit("a bound is not kept")


if __name__ == "__main__":
    main()
