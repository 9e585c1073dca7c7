"""Faults of the control plane, each of which meets every job at the same time."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from devcluster.cluster import restart
from devcluster.components import ETCD_CLIENTS
from devcluster.layout import own_layout
from devcluster.processes import Processes

from examples.demo.chain import ROOT
from tests.faults.api_server import Object, until
from tests.faults.trial import Run

API_SERVER = "kube-apiserver"
#: In this time every job of a disaster has begun, and in this it is over.
GATHERING_SECONDS = 30.0
LONGEST_SECONDS = 150.0

Strike = Callable[[Run], Awaitable[None]]


@dataclass
class Disaster:
    """Strikes once, when as many jobs as are to meet it are under way."""

    strike: Strike
    jobs: int
    _waiting: int = 0
    _struck: asyncio.Event = field(default_factory=asyncio.Event)

    async def hand(self, run: Run) -> None:
        await until("it has begun", run.team.state, GATHERING_SECONDS)
        self._waiting += 1
        if self._waiting == self.jobs:
            await self.strike(run)
            self._struck.set()
        await asyncio.wait_for(self._struck.wait(), LONGEST_SECONDS)


async def restart_api_server(_: Run) -> None:
    await asyncio.to_thread(restart, own_layout(), API_SERVER)


def pause_api_server(seconds: float) -> Strike:
    async def strike(_: Run) -> None:
        processes = Processes(own_layout())
        processes.send(API_SERVER, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            processes.send(API_SERVER, signal.SIGCONT)

    return strike


async def compact_etcd(_: Run) -> None:
    """Through etcd's own gateway: nothing older than now can be asked for any more."""
    async with aiohttp.ClientSession(ETCD_CLIENTS, trust_env=False) as etcd:

        async def ask(target: str, body: Object) -> Object:
            async with etcd.post(target, json=body) as answer:
                text = await answer.text()
                assert answer.status == 200, text
                return dict(json.loads(text))

        found = await ask("/v3/kv/range", {"key": "AA==", "limit": "1"})
        revision = found["header"]["revision"]
        await ask("/v3/kv/compaction", {"revision": revision, "physical": True})


async def compact_and_restart(run: Run) -> None:
    """A restarted API server remembers no events: what came before is 410 Gone for every watch."""
    await restart_api_server(run)
    await compact_etcd(run)
    await restart_api_server(run)


async def upgrade_definitions(run: Run) -> None:
    """Another description and another optional field, for all kinds, and back again."""
    files = sorted((ROOT / "crds").glob("*.yaml"))
    for change in (upgraded, same):
        for file in files:
            definition = change(_definition(file))
            name = definition["metadata"]["name"]
            await run.team.api.apply("customresourcedefinitions", name, definition)
        await asyncio.sleep(2)


def _definition(file: Path) -> Object:
    return dict(yaml.safe_load(file.read_text()))


def same(definition: Object) -> Object:
    return definition


def upgraded(definition: Object) -> Object:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["description"] = "As a later version describes it."
    part = "status" if "status" in schema["properties"] else "spec"
    schema["properties"][part]["properties"]["later"] = {"type": "string"}
    return definition
