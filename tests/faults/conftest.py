"""The stage for all trials: the real control plane, simulated nodes, one seed."""

from __future__ import annotations

import random
import shutil
import subprocess
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pytest
import pytest_asyncio

from examples.demo.chain import ROOT
from examples.demo.kubectl import Kubectl
from tests.faults.api_server import ApiServer, session
from tests.faults.history import History
from tests.faults.stage import Stage
from tests.faults.tally import WANTED, Tally

NODES = 4
#: Of the points of one test, where only a selection is wanted.
QUICK_POINTS = 2

Item = TypeVar("Item")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="what is chosen at random follows from it")
    parser.addoption("--selection", action="store_true", help="a few points of each kind only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a selection, one case of each test that has several."""
    if not config.getoption("--selection"):
        return
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    chance = random.Random(config.getoption("--seed"))
    items[:] = [chance.choice(each) for each in cases.values()]


@dataclass(frozen=True)
class Choice:
    """Which points are tried: all, or some of each kind, chosen by the seed."""

    seed: int
    selection: bool

    def of(self, points: list[Item]) -> list[Item]:
        if not self.selection or len(points) <= QUICK_POINTS:
            return points
        return random.Random(self.seed).sample(points, QUICK_POINTS)


@pytest.fixture(scope="session")
def choice(request: pytest.FixtureRequest) -> Choice:
    return Choice(request.config.getoption("--seed"), request.config.getoption("--selection"))


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest, choice: Choice) -> Iterator[Tally]:
    """The figures, told when all is done. Of a part that was asked for nothing is wanted but that
    it ends right."""
    is_part = choice.selection or request.config.getoption("keyword")
    made = Tally("faults-selection", 1) if is_part else Tally("faults", WANTED)
    yield made
    assert made.tell(), "a bound is not kept"


@pytest.fixture(scope="session")
def simulated_nodes() -> Iterator[None]:
    definitions = str(ROOT / "crds")
    subprocess.run(["kubectl", "apply", "--server-side", "-f", definitions], check=True)
    established = ["kubectl", "wait", "--for=condition=Established", "-f", definitions]
    subprocess.run(established, check=True)
    subprocess.run(["python3", "-m", "devcluster", "kwok-up", "--nodes", str(NODES)], check=True)
    yield
    subprocess.run(["python3", "-m", "devcluster", "kwok-down"], check=True)


@pytest.fixture(scope="session")
def no_other_operator(simulated_nodes: None) -> Iterator[None]:
    """One that is installed looks after all namespaces: it rests meanwhile."""
    system, deployment = Kubectl("tunesmith-system"), "deployment/tunesmith-operator"
    if not system.run("get", deployment, "--ignore-not-found"):
        yield
        return
    system.run("scale", deployment, "--replicas=0")
    system.run("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator")
    yield
    system.run("scale", deployment, "--replicas=1")
    system.run("rollout", "status", deployment)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(no_other_operator: None, choice: Choice) -> AsyncIterator[Stage]:
    async with session() as connections:
        history = History(connections)
        history.start()
        folder = ROOT / "build" / "faults"
        shutil.rmtree(folder, ignore_errors=True)
        yield Stage(connections, ApiServer(connections), history, folder, uuid.uuid4().hex[:6])
        await history.close()
