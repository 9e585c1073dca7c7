"""A serving pod's vLLM and proxy, inside the test's own process.

They stand in for faults of vLLM and the proxy which the real ones cannot be made to show on
demand: a load that hangs, an answer that is NaN, an end in the midst of a start. Real ones are
used end to end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunesmith.api.serving_contract import (
    DESIRED_FILE,
    SERVER_FILE,
    AdapterReport,
    DesiredAdapter,
    DesiredState,
    Route,
    ServedBase,
    Target,
    Traffic,
)
from tunesmith.sidecar import replica as replica_module
from tunesmith.sidecar.proxy import Proxy, ProxyState
from tunesmith.sidecar.replica import Places, Replica
from tunesmith.sidecar.vllm import Vllm, VllmRefusedError

from tests.unit.operator.adapters import Adapter, write_base

BASE = "smol"
BASE_ANSWER = {" a": -0.5, " b": -1.0}
#: Steps that are always enough: from nothing to loaded, proven, routed.
MOST_STEPS = 20
LONGEST_STEP_SECONDS = 30


class FakeVllm(Vllm):
    """Knows names and paths, answers with what it is told."""

    def __init__(self) -> None:
        self.is_up = False
        self.loaded: dict[str, str] = {}
        #: Models whose load is refused or hangs, and how many loads hang now.
        self.refused: set[str] = set()
        self.hanging: set[str] = set()
        self.stuck = 0
        #: Models whose answers are those of the base, or no numbers.
        self.without_effect: set[str] = set()
        self.not_finite: set[str] = set()
        #: Every command in order, as words: load, unload, ask.
        self.told: list[tuple[str, str]] = []

    def commands(self, verb: str) -> list[str]:
        return [model for each, model in self.told if each == verb]

    async def models(self) -> dict[str, str] | None:
        return {BASE: "/models/smol", **self.loaded} if self.is_up else None

    async def load(self, model: str, path: str) -> None:
        self.told.append(("load", model))
        if model in self.hanging:
            self.stuck += 1
            await asyncio.Event().wait()
        if model in self.refused:
            raise VllmRefusedError("it does not fit")
        if model in self.loaded:
            raise VllmRefusedError("it has already been loaded")
        self.loaded[model] = path

    async def unload(self, model: str) -> None:
        self.told.append(("unload", model))
        if model not in self.loaded:
            raise VllmRefusedError("there is no such adapter")
        del self.loaded[model]

    async def first_token(self, model: str, prompt: str) -> dict[str, float]:
        self.told.append(("ask", model))
        if model in self.not_finite:
            raise VllmRefusedError(f"the answer of {model} holds no finite log-probabilities")
        if model != BASE and model not in self.loaded:
            raise VllmRefusedError("there is no such model")
        same = model == BASE or model in self.without_effect
        return {token: value - (0 if same else 2) for token, value in BASE_ANSWER.items()}


class FakeProxy(Proxy):
    """Keeps every table that it was given."""

    def __init__(self) -> None:
        self.is_up = True
        self.tables: list[dict[str, Any]] = []
        self.traffic: dict[str, Traffic] = {}

    @property
    def names(self) -> set[str]:
        return set(self.tables[-1]["routes"]) if self.tables else set()

    @property
    def complete(self) -> bool:
        return bool(self.tables) and bool(self.tables[-1]["complete"])

    async def state(self) -> ProxyState | None:
        if not self.is_up:
            return None
        digest = self.tables[-1]["digest"] if self.tables else ""
        return ProxyState(digest=digest, traffic=self.traffic)

    async def put(self, table: dict[str, Any]) -> bool:
        if self.is_up:
            self.tables.append(table)
        return self.is_up


class Clock:
    """The sidecar's time, which passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Pod:
    """A serving pod: its files under one folder, and its three containers."""

    root: Path
    clock: Clock
    vllm: FakeVllm = field(default_factory=FakeVllm)
    proxy: FakeProxy = field(default_factory=FakeProxy)

    def __post_init__(self) -> None:
        run, configuration = self.root / "run", self.root / "configuration"
        for folder in (run, configuration, self.root / "claims"):
            folder.mkdir(parents=True)
        self.base = write_base(self.root / "base")
        self.places = Places(
            configuration=configuration,
            start=run / "vllm.yaml",
            starts=run / "starts",
            claims=self.root / "claims",
            memory=run / "memory.json",
        )
        (configuration / SERVER_FILE).write_text("model: /base\nenable-lora: true\n")
        self.restart_sidecar()

    # --- what is wanted --------------------------------------------------------------------------

    def files(self, name: str, spoil: Callable[[Adapter], None] | None = None) -> Adapter:
        adapter = Adapter(self.places.claims / name)
        if spoil:
            spoil(adapter)
        adapter.expected()
        return adapter

    def adapter(
        self, name: str, *, spoil: Callable[[Adapter], None] | None = None, base: str | None = None
    ) -> DesiredAdapter:
        """One with files on disk, which pass unless ``spoil`` changes them."""
        files = self.files(name, spoil)
        return DesiredAdapter(
            model=f"{name}@1",
            path=str(files.folder),
            digest=files.named().digest,
            base_model_digest=base,
        )

    def want(self, *adapters: DesiredAdapter, **changes: Any) -> None:
        """Each answers under the begin of its name, too."""
        routes = [
            Route(name=each.model.split("@")[0], targets=[Target(model=each.model)])
            for each in adapters
        ]
        fields: dict[str, Any] = {
            "base": ServedBase(name=BASE, path=str(self.base)),
            "max_lora_rank": 16,
            "adapters": list(adapters),
            "routes": routes,
        }
        self.write(DesiredState(**fields | changes).model_dump_json(by_alias=True))

    def write(self, text: str) -> None:
        (self.places.configuration / DESIRED_FILE).write_text(text)

    # --- what happens ----------------------------------------------------------------------------

    def restart_sidecar(self) -> None:
        """A new process: nothing is left of the old one but what it wrote."""
        self.replica = Replica(self.vllm, self.proxy, self.places)

    def start_vllm(self, *, up: bool = True) -> None:
        """It notes its start and loads the modules of its file."""
        with self.places.starts.open("a") as file:
            file.write("start\n")
        self.vllm.is_up = up
        self.vllm.loaded = {each["name"]: each["path"] for each in self.modules()}

    async def step(self) -> None:
        """One step, and all that it set going, but for what hangs."""
        await self.replica.step()
        due = time.monotonic() + LONGEST_STEP_SECONDS
        while len(under_way := asyncio.all_tasks() - {asyncio.current_task()}) > self.vllm.stuck:
            assert time.monotonic() < due
            await asyncio.wait(under_way, timeout=0.05)
        # What is called when a task is done is called after this.
        await asyncio.sleep(0)

    async def settle(self) -> None:
        """Steps until nothing changes any more."""
        before: tuple[object, ...] = ()
        for _ in range(MOST_STEPS):
            await self.step()
            now = (
                self.replica.started,
                self.replica.report(),
                len(self.vllm.told),
                len(self.proxy.tables),
                self.replica.memory.model_dump(),
            )
            if now == before:
                return
            before = now
        raise AssertionError(f"after {MOST_STEPS} steps there is still something to do")

    async def serve(self, *adapters: DesiredAdapter) -> None:
        """From nothing until all is served that can be."""
        self.want(*adapters)
        await self.settle()
        self.start_vllm()
        await self.settle()

    # --- what is to be seen ----------------------------------------------------------------------

    def modules(self) -> list[dict[str, str]]:
        """Those in the file that vLLM starts with."""
        options = yaml.safe_load(self.places.start.read_text())
        return [json.loads(each) for each in options.get("lora-modules", [])]

    def module_names(self) -> list[str]:
        return [each["name"] for each in self.modules()]

    def told(self, model: str) -> AdapterReport:
        (found,) = [each for each in self.replica.report().adapters if each.model == model]
        return found

    def states(self) -> dict[str, str]:
        return {each.model: str(each.state) for each in self.replica.report().adapters}


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    clock = Clock()
    monkeypatch.setattr(replica_module, "time", clock)
    return Pod(tmp_path / "pod", clock)
