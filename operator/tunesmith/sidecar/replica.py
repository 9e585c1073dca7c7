"""Brings vLLM and the proxy of this pod to the desired state, again and again.

Each step looks at what is: the desired file, vLLM's model list, the proxy's table. Every version
then goes its own way, pre-flight → load → proof, beside the others: a slow or bad one delays none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.api.reasons import RefusalReason
from tunesmith.api.serving_contract import (
    CONFIGURATION_FOLDER,
    DESIRED_FILE,
    MEMORY_FILE,
    SERVER_FILE,
    START_FILE,
    STARTS_FILE,
    AdapterReport,
    AdapterState,
    DesiredAdapter,
    DesiredState,
    ReplicaReport,
    Traffic,
    state_digest,
)
from tunesmith.api.trainer_contract import CLAIMS_FOLDER
from tunesmith.sidecar import probe
from tunesmith.sidecar.base_files import BaseFiles
from tunesmith.sidecar.memory import Memory, signature
from tunesmith.sidecar.preflight import Expected, examine
from tunesmith.sidecar.proxy import Proxy, ProxyState, routing_table
from tunesmith.sidecar.refusal import Refused
from tunesmith.sidecar.start_file import start_file, write_whole
from tunesmith.sidecar.vllm import Vllm, VllmRefusedError

log = logging.getLogger(__name__)

#: Reading files is bound by the disk, loading is one at a time inside vLLM anyway.
EXAMINED_AT_ONCE = 2
LOADED_AT_ONCE = 2
PROVEN_AT_ONCE = 8
#: Pause before something is tried again that was refused or failed: files may be mended.
AGAIN_SECONDS = 20.0
LONGEST_SECONDS = 600.0
#: Reasons that say nothing about the files that vLLM has loaded already.
UNREACHABLE = {RefusalReason.NOT_FOUND, RefusalReason.WEIGHTS_UNREADABLE}


@dataclass(frozen=True)
class Places:
    """The folders and files that this pod's containers share."""

    configuration: Path = Path(CONFIGURATION_FOLDER)
    start: Path = Path(START_FILE)
    starts: Path = Path(STARTS_FILE)
    claims: Path = Path(CLAIMS_FOLDER)
    memory: Path = Path(MEMORY_FILE)


@dataclass(frozen=True)
class Setback:
    """Why a version is not served here, and when it is tried again."""

    state: AdapterState
    reason: RefusalReason
    message: str
    signature: str
    again_at: float
    #: Setbacks of this version before this one, without a success in between.
    times: int = 0


@dataclass
class Replica:
    """This pod, as the sidecar knows it."""

    vllm: Vllm
    proxy: Proxy
    places: Places = field(default_factory=Places)

    def __post_init__(self) -> None:
        self.desired: DesiredState | None = None
        self.desired_digest = ""
        self.models: dict[str, str] | None = None
        self.memory = Memory.recall(self.places.memory)
        self.setbacks: dict[str, Setback] = {}
        self.wake = asyncio.Event()
        self._seen_at: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._load_seconds: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[bool]] = {}
        self._base = BaseFiles(self.memory.base_digests, self.places.claims)
        self._base_answers: dict[str, dict[str, float]] = {}
        self._table: dict[str, object] = {}
        self._proxy: ProxyState | None = None
        self._start_contents: tuple[str, list[DesiredAdapter]] | None = None
        self._examining = asyncio.Semaphore(EXAMINED_AT_ONCE)
        self._loading = asyncio.Semaphore(LOADED_AT_ONCE)
        self._proving = asyncio.Semaphore(PROVEN_AT_ONCE)
        self._signatures: dict[str, str] = {}
        self._seen_files: tuple[object, ...] = ()

    # --- one look at everything ------------------------------------------------------------------

    async def step(self) -> None:
        """Look at all that is, and set going what is missing."""
        self._seen_files = self._files()
        self._signatures.clear()
        self._read_desired()
        if self.desired is None:
            return
        self._notice_start()
        self.models = await self.vllm.models()
        if self.models is not None and not self.memory.was_up:
            self.memory.was_up = True
        self._proxy = await self.proxy.state()
        for adapter in self.desired.adapters:
            self._seen_at.setdefault(adapter.model, time.monotonic())
            if self._passed(adapter) and self._is_ready(adapter):
                # Its files were away for a moment, and are the same again.
                self.setbacks.pop(adapter.model, None)
            if adapter.model not in self._tasks and self._has_work(adapter):
                self._begin(adapter)
        await self._unload_what_left()
        self._write_start_file()
        await self._route()
        self.memory.keep(self.places.memory)

    def is_due(self) -> bool:
        """Whether something changed that a step looks at and that is cheap to see."""
        return self.wake.is_set() or self._files() != self._seen_files

    def is_settled(self) -> bool:
        """Whether nothing is under way."""
        if self.desired is None:
            return True
        return self.models is not None and self._all_settled() and not self.leaving()

    def _files(self) -> tuple[object, ...]:
        return tuple(
            stamp(file) for file in (self.places.configuration / DESIRED_FILE, self.places.starts)
        )

    def _read_desired(self) -> None:
        """The desired state as the kubelet shows it now; an unreadable one changes nothing."""
        try:
            text = (self.places.configuration / DESIRED_FILE).read_text(encoding="utf-8")
            digest = state_digest(text)
            if digest != self.desired_digest:
                self.desired = DesiredState.model_validate_json(text)
                self.desired_digest = digest
                log.info("desired state %s: %d versions", digest, len(self.desired.adapters))
        except (OSError, ValueError) as error:
            log.warning("the desired state cannot be read: %s", error)

    def _notice_start(self) -> None:
        """vLLM was started anew: what was loaded and proven before is not any more."""
        start = starts(self.places.starts)
        if start == self.memory.start:
            return
        if self.memory.start and not self.memory.was_up:
            # It ended before it answered. The modules in its start file may be why: without them
            # it starts, and loading them one by one shows which it is.
            self.memory.bare = True
            log.warning("vLLM ended before it was up: it starts without adapters now")
        log.info("start %d of vLLM", start)
        self.memory.start, self.memory.was_up, self.memory.complete = start, False, False
        self.memory.proven.clear()
        self._base_answers.clear()

    # --- one version -----------------------------------------------------------------------------

    def _has_work(self, adapter: DesiredAdapter) -> bool:
        setback = self.setbacks.get(adapter.model)
        unchanged = setback and setback.signature == self._signature(adapter)
        if setback and unchanged and time.monotonic() < setback.again_at:
            return False
        if not self._passed(adapter):
            return True
        return self.models is not None and not self._is_ready(adapter)

    def _begin(self, adapter: DesiredAdapter) -> None:
        task = asyncio.create_task(self._bring(adapter))
        self._tasks[adapter.model] = task

        def ended(done: asyncio.Task[bool]) -> None:
            self._tasks.pop(adapter.model, None)
            if not done.cancelled() and done.result():
                self.wake.set()

        task.add_done_callback(ended)

    async def _bring(self, adapter: DesiredAdapter) -> bool:
        """Pre-flight, load, proof: as far as it goes now. Whether that changed anything."""
        known = self._passed(adapter)
        try:
            async with self._examining:
                if not await self._examine(adapter):
                    return False
            if self.models is None:
                return not known
            async with self._loading:
                await self._load(adapter)
            async with self._proving:
                await self._prove(adapter)
            self.setbacks.pop(adapter.model, None)
        except Refused as error:
            self._set_back(adapter, AdapterState.REFUSED, error.reason, error.message)
        except VllmRefusedError as error:
            self._set_back(adapter, AdapterState.FAILED, RefusalReason.VLLM_REFUSED, str(error))
        except Exception as error:
            log.exception("%s", adapter.model)
            self._set_back(adapter, AdapterState.FAILED, RefusalReason.INTERNAL, repr(error))
        return True

    async def _examine(self, adapter: DesiredAdapter) -> bool:
        """Whether the version may be shown to vLLM now. Raises Refused when it must not be."""
        assert self.desired is not None
        if self._passed(adapter):
            # Its files are as they were. The base's may not be since vLLM was started anew.
            await self._base.require(self.desired.base, adapter)
            return True
        base = await self._base.read(self.desired.base)
        if base is None and self.models is None:
            # The base model comes with vLLM's download: wait for it, then compare shapes.
            return False
        await self._base.require(self.desired.base, adapter)
        expected = Expected(Path(adapter.path), adapter.digest, self.places.claims)
        # Taken before: files that change while they are examined have not passed.
        found = signature(adapter, self.desired.max_lora_rank)
        await asyncio.to_thread(examine, expected, base, self.desired.max_lora_rank)
        self.memory.passed[adapter.model] = found
        return True

    async def _load(self, adapter: DesiredAdapter) -> None:
        """Have vLLM hold exactly this path under this name."""
        models = self.models
        if models is None or models.get(adapter.model) == adapter.path:
            return
        if adapter.model in models:
            await self.vllm.unload(adapter.model)
        began = time.monotonic()
        await self.vllm.load(adapter.model, adapter.path)
        self._load_seconds[adapter.model] = time.monotonic() - began
        models[adapter.model] = adapter.path
        log.info("loaded %s", adapter.model)

    async def _prove(self, adapter: DesiredAdapter) -> None:
        """Raises VllmRefusedError unless some answer differs from the base model's."""
        assert self.desired is not None
        start, largest = self.memory.start, 0.0
        for prompt in probe.prompts(Path(adapter.path)):
            base = await self._base_answer(prompt)
            answer = await self.vllm.first_token(adapter.model, prompt)
            largest = max(largest, probe.difference(base, answer))
            if largest >= probe.LEAST_DIFFERENCE:
                break
        else:
            raise VllmRefusedError(
                f"the answers of {adapter.model} do not differ from the base model's: it is not "
                "applied, or was hardly trained"
            )
        if start == self.memory.start:
            self.memory.proven[adapter.model] = adapter.path
            seconds = time.monotonic() - self._seen_at[adapter.model]
            self._seconds.setdefault(adapter.model, seconds)
            log.info("%s answers after %.2f s", adapter.model, seconds)

    async def _base_answer(self, prompt: str) -> dict[str, float]:
        """Asked once for each prompt and start of vLLM."""
        assert self.desired is not None
        if prompt not in self._base_answers:
            found = await self.vllm.first_token(self.desired.base.name, prompt)
            self._base_answers[prompt] = found
        return self._base_answers[prompt]

    def _set_back(
        self, adapter: DesiredAdapter, state: AdapterState, reason: RefusalReason, message: str
    ) -> None:
        log.warning("%s: %s: %s", adapter.model, reason, message)
        if reason not in UNREACHABLE:
            self.memory.proven.pop(adapter.model, None)
        before = self.setbacks.get(adapter.model)
        times = before.times + 1 if before else 0
        # Apart from each other: if one of them ends vLLM, the others have their turn without it.
        pause = min(AGAIN_SECONDS * 2**times, LONGEST_SECONDS) * random.uniform(0.8, 1.2)
        self.setbacks[adapter.model] = Setback(
            state, reason, message, self._signature(adapter), time.monotonic() + pause, times
        )

    def _signature(self, adapter: DesiredAdapter) -> str:
        """Of the files as they were at the beginning of this step."""
        if adapter.model not in self._signatures:
            rank = self.desired.max_lora_rank if self.desired else 0
            self._signatures[adapter.model] = signature(adapter, rank)
        return self._signatures[adapter.model]

    def _passed(self, adapter: DesiredAdapter) -> bool:
        return self.memory.passed.get(adapter.model) == self._signature(adapter)

    def _is_ready(self, adapter: DesiredAdapter) -> bool:
        loaded = (self.models or {}).get(adapter.model) == adapter.path
        return loaded and self.memory.proven.get(adapter.model) == adapter.path

    # --- all versions ----------------------------------------------------------------------------

    async def _unload_what_left(self) -> None:
        """Names that are no longer desired go once nobody can ask for them any more and no request
        of theirs is under way: that is the proxy's to say."""
        proxy = self._proxy
        if proxy is None or proxy.digest != self._table.get("digest"):
            return
        for model in self.leaving():
            if model in self._table_models() or self._in_flight(model):
                continue
            try:
                await self.vllm.unload(model)
                (self.models or {}).pop(model, None)
                log.info("unloaded %s", model)
            except VllmRefusedError as error:
                log.warning("%s is not unloaded: %s", model, error)

    def leaving(self) -> list[str]:
        assert self.desired is not None
        wanted = {each.model for each in self.desired.adapters} | {self.desired.base.name}
        return sorted(model for model in self.models or {} if model not in wanted)

    def _in_flight(self, model: str) -> int:
        found = self._proxy.traffic.get(model) if self._proxy else None
        return found.in_flight if found else 0

    def _table_models(self) -> set[str]:
        routes = self._table.get("routes", {})
        return set(routes) if isinstance(routes, dict) else set()

    def _write_start_file(self) -> None:
        """What vLLM starts with, should it be started now. Not before everything was examined."""
        assert self.desired is not None
        examined = all(
            self._passed(each) or each.model in self.setbacks or self._waits_for_base()
            for each in self.desired.adapters
        )
        if not examined and not self.places.start.exists():
            return
        good = [
            each
            for each in self.desired.adapters
            if self._passed(each) and each.model not in self.setbacks
        ]
        server = (self.places.configuration / SERVER_FILE).read_text(encoding="utf-8")
        contents = server, [] if self.memory.bare else good
        if contents != self._start_contents:  # writing YAML of 1,000 modules takes a while
            write_whole(self.places.start, start_file(*contents))
            self._start_contents = contents

    def _waits_for_base(self) -> bool:
        """Nothing can be compared with a base that is not there: vLLM starts without adapters,
        fetches it or says what is wrong with it, and they follow."""
        return self._base.model is None and self.models is None and self._base.looked_for

    async def _route(self) -> None:
        """Tell the proxy which names it may answer to."""
        assert self.desired is not None
        if self.models is not None and self._all_settled():
            self.memory.complete, self.memory.bare = True, False
        known = self._proxy.digest if self._proxy else ""
        if self.models is None and known:
            # vLLM is starting again, or too busy to answer: names come and go when it is heard.
            await self._withdraw_pod()
            return
        ready = [each.model for each in self.desired.adapters if self._is_ready(each)]
        table = routing_table(self.desired, ready, complete=self.memory.complete)
        if table["digest"] == known or await self.proxy.put(table):
            self._table = table

    async def _withdraw_pod(self) -> None:
        """A pod whose vLLM has just started anew gets no requests until its versions are back."""
        if self._table.get("complete") and not self.memory.complete:
            table = {**self._table, "complete": False, "digest": f"{self._table['digest']}-"}
            if await self.proxy.put(table):
                self._table = table

    def _all_settled(self) -> bool:
        assert self.desired is not None
        return all(
            self._is_ready(each) or each.model in self.setbacks for each in self.desired.adapters
        )

    # --- what is told ----------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether vLLM may start."""
        return self.places.start.exists()

    def report(self) -> ReplicaReport:
        adapters = self.desired.adapters if self.desired else []
        return ReplicaReport(
            desired=self.desired_digest,
            starts=self.memory.start,
            serving=self.models is not None and self.memory.complete,
            base=self.desired.base.name if self.desired else "",
            adapters=[self._told(each) for each in adapters],
            leaving=self.leaving() if self.desired else [],
            clients=self._proxy.clients if self._proxy else None,
            traffic=self._traffic(),
        )

    def _traffic(self) -> dict[str, Traffic]:
        """Of versions that are here; the proxy remembers all it ever saw."""
        here = {*(self.models or {}), *self._table_models()}
        counted = self._proxy.traffic if self._proxy else {}
        return {model: each for model, each in counted.items() if model in here}

    def _told(self, adapter: DesiredAdapter) -> AdapterReport:
        setback = self.setbacks.get(adapter.model)
        if setback and not self._is_ready(adapter):
            return AdapterReport(
                model=adapter.model,
                digest=adapter.digest,
                state=setback.state,
                reason=setback.reason,
                message=setback.message,
            )
        # Only what the proxy was told can be asked for.
        ready = self._is_ready(adapter) and adapter.model in self._table_models()
        return AdapterReport(
            model=adapter.model,
            digest=adapter.digest,
            state=AdapterState.READY if ready else AdapterState.LOADING,
            seconds=self._seconds.get(adapter.model),
            load_seconds=self._load_seconds.get(adapter.model),
        )


def stamp(file: Path) -> tuple[int, int, int] | None:
    """Changes when the file does; a file of a ConfigMap gets a new inode."""
    try:
        found = file.stat()
        return (found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError:
        return None


def starts(file: Path) -> int:
    """How often vLLM was started: it writes a line each time."""
    try:
        return len(file.read_text(encoding="utf-8").splitlines())
    except OSError:
        return 0
