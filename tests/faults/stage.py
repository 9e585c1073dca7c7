"""Where trials are held: each in a namespace of its own, with an operator of its own."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from tunesmith.api.job_status import JobState

from tests.cluster.manifests import claim
from tests.faults.api_server import ApiServer, until
from tests.faults.end import End, end_of
from tests.faults.fault import Fault, may_hinder_a_start
from tests.faults.history import History
from tests.faults.invariants import Story, broken_invariants
from tests.faults.operator_process import OperatorProcess, Surroundings
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario, Team
from tests.faults.trial import Around, Outcome, Run, Trial, as_it_is

#: So many at a time: most of each is waiting for pods, and two cores carry it.
AT_ONCE = 8
END_SECONDS = 90.0
#: The garbage collector's time: it learns of new definitions twice a minute.
ORPHAN_SECONDS = 50.0
STRIKE_SECONDS = 5.0


@dataclass(frozen=True)
class Reference:
    """How a scenario goes without a fault."""

    end: End
    #: Every write of the operator, in order.
    writes: tuple[str, ...]
    reads: int


@dataclass
class Stage:
    """The control plane, and everything that was seen on it."""

    connections: aiohttp.ClientSession
    api: ApiServer
    history: History
    folder: Path
    #: An earlier session's namespaces may still be going.
    session: str
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _references: dict[str, asyncio.Task[Reference]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def reference(self, scenario: Scenario) -> Reference:
        """Told once, and remembered."""
        if scenario.name not in self._references:
            telling = asyncio.ensure_future(self._tell(scenario))
            self._references[scenario.name] = telling
        return await self._references[scenario.name]

    async def hold_all(self, trials: Iterable[Trial]) -> list[Outcome]:
        """Side by side."""
        return await asyncio.gather(*(self.hold(each) for each in trials))

    async def hold(self, trial: Trial) -> Outcome:
        """Whatever goes wrong is in the outcome."""
        expected = await self.reference(trial.model)
        outcome = await self._once(trial, expected.end)
        # How many requests there are differs with how fast things happen.
        return outcome if outcome.tried else await self._once(trial, expected.end)

    async def _tell(self, scenario: Scenario) -> Reference:
        async with self._places, self._run(None) as run:
            await run.team.apply(scenario)
            await scenario.act(run.team)
            await run.team.until_state(scenario.ends, seconds=END_SECONDS)
            if scenario.served:
                await run.team.until_replicas_answer()
            if scenario.served and scenario.ends is JobState.READY:
                await run.team.until_served()
            await run.quiet()
            broken = await self._broken(run)
            assert not broken, broken
            end = await end_of(self.api, run.team.namespace)
            return Reference(end, tuple(run.proxy.writes), run.proxy.reads)

    async def _broken(self, run: Run) -> list[str]:
        """What breaks an invariant, once the garbage collector has had its time."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (broken := await broken_invariants(run.story)) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        return broken

    async def _once(self, trial: Trial, expected: End) -> Outcome:
        async with self._places:
            began, struck, tried = time.monotonic(), "", True
            try:
                async with self._run(trial.fault, trial.around) as run:
                    broken = await self._under(trial, run, expected)
                    tried = trial.fault is None or run.proxy.has_struck
                    struck = ", ".join(run.proxy.struck[:3])
                    if broken:
                        self._keep_log(trial, run, broken)
            except Exception:
                broken = [traceback.format_exc(limit=-3)]
            seconds = time.monotonic() - began
        outcome = Outcome(trial.group, trial.name, tried, broken, seconds, struck)
        print(outcome, flush=True)
        return outcome

    async def _under(self, trial: Trial, run: Run, expected: End) -> list[str]:
        await run.team.apply(trial.scenario)
        interfering = asyncio.ensure_future(trial.hand(run))
        try:
            await trial.scenario.act(run.team)
            await interfering
            broken = await self._until_end(trial, run, expected)
        except TimeoutError as error:
            broken = [str(error), *await self._differences(trial, run, expected)]
        finally:
            interfering.cancel()
        if ended := _wrongly_ended(trial, run.operator):
            broken.append(f"the operator ended by itself: {ended}")
        return broken or await self._broken(run)

    async def _until_end(self, trial: Trial, run: Run, expected: End) -> list[str]:
        """Until everything is as without the fault, and stays so."""

        async def ended() -> bool:
            if await run.team.state() != trial.scenario.ends:
                return False
            return not await self._differences(trial, run, expected)

        async def struck() -> bool:
            return trial.fault is None or run.proxy.has_struck

        await until("the same end as without the fault", ended, END_SECONDS)
        try:
            await until("struck", struck, STRIKE_SECONDS, every=0.1)
        except TimeoutError:
            return []
        await run.quiet()
        return await self._differences(trial, run, expected)

    async def _differences(self, trial: Trial, run: Run, expected: End) -> list[str]:
        return trial.check(expected, await end_of(self.api, run.team.namespace))

    @asynccontextmanager
    async def _run(self, fault: Fault | None, around: Around = as_it_is) -> AsyncIterator[Run]:
        """A namespace with an operator whose way to the API server leads through a proxy."""
        namespace = f"faults-{self.session}-{next(self._numbers)}"
        folder = self.folder / namespace
        folder.mkdir(parents=True)
        proxy = Proxy(self.connections, fault)
        await proxy.start()
        usual = Surroundings(proxy.address, folder, namespace, (namespace,))
        operator = OperatorProcess(around(usual))
        proxy.kill = operator.kill
        proxy.stop = lambda: operator.signal(signal.SIGSTOP)
        proxy.go_on = lambda: operator.signal(signal.SIGCONT)
        await self._create_namespace(namespace)
        operator.start()
        team = Team(self.api, namespace)
        try:
            yield Run(team, proxy, operator, Story(self.api, namespace, self.history))
        finally:
            await operator.close()
            await proxy.close()
            await self.api.delete("namespaces", None, namespace)
            self.history.forget(namespace)

    async def _create_namespace(self, name: str) -> None:
        """With the claim that every pod mounts."""
        await self.api.create("namespaces", None, {"metadata": {"name": name}})
        await self.api.create("persistentvolumeclaims", name, claim("adapters"))

    def _keep_log(self, trial: Trial, run: Run, broken: list[str]) -> None:
        told = [trial.name, *broken, *run.proxy.writes, run.operator.log.read_text()]
        (self.folder / f"{run.team.namespace}.broken").write_text("\n".join(told))


def _wrongly_ended(trial: Trial, operator: OperatorProcess) -> list[int]:
    """Exit codes of processes that ended by themselves and had no reason to."""
    if trial.may_lose_lease:
        return []
    return operator.ended_at_work if may_hinder_a_start(trial.fault) else operator.ended
