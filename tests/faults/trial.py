"""One trial: a scenario in a namespace of its own, with an operator of its own, under one fault."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from tests.cluster.manifests import claim
from tests.faults.api_server import ApiServer, until
from tests.faults.end import End, end_of
from tests.faults.fault import Fault, Group
from tests.faults.history import History
from tests.faults.invariants import Story, broken_invariants
from tests.faults.operator_process import OperatorProcess, Surroundings
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario, Team

#: So many at a time: two cores carry the control plane, too.
AT_ONCE = 4
END_SECONDS = 90.0
#: An operator that has written nothing for so long, and has nothing to wait for, is done.
QUIET_SECONDS = 1.2
QUIET_PATIENCE = 60.0
#: Trouble that is no reason for the operator's process to end.
NEVER_ENDS = {Group.WATCH, Group.HAND, Group.DELETION}
#: The garbage collector's time.
ORPHAN_SECONDS = 20.0
STRIKE_SECONDS = 5.0


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    group: Group
    name: str
    #: Whether the fault struck at all.
    tried: bool
    #: What is not as it should be, in words.
    broken: list[str]
    seconds: float
    #: The request that was struck.
    struck: str = ""


@dataclass
class Run:
    """A trial under way: what acts and checks may look at, and lay hands on."""

    team: Team
    proxy: Proxy
    operator: OperatorProcess
    story: Story

    async def quiet(self) -> None:
        """Until the operator, as it was last started, has looked and has nothing left to do."""

        async def has_looked() -> bool:
            return self.proxy.last_look > self.operator.started_at

        await until("the operator has looked", has_looked, QUIET_PATIENCE, every=0.1)
        looked = time.monotonic()

        async def is_quiet() -> bool:
            return time.monotonic() - max(self.proxy.last_write, looked) > QUIET_SECONDS

        await until("the operator is quiet", is_quiet, QUIET_PATIENCE, every=0.1)


Hand = Callable[[Run], Awaitable[None]]
Check = Callable[[End, End], list[str]]
Around = Callable[[Surroundings], Surroundings]


async def no_hand(_: Run) -> None:
    """Nobody interferes."""


def as_it_is(usual: Surroundings) -> Surroundings:
    return usual


def same_end(expected: End, found: End) -> list[str]:
    return found.differences(expected)


@dataclass(frozen=True)
class Reference:
    """How a scenario goes without a fault."""

    end: End
    #: Every write of the operator, in order.
    writes: tuple[str, ...]
    reads: int


@dataclass
class Stage:
    """Where trials are held."""

    connections: aiohttp.ClientSession
    api: ApiServer
    history: History
    folder: Path
    seed: int
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _references: dict[str, asyncio.Task[Reference]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def reference(self, scenario: Scenario) -> Reference:
        if scenario.name not in self._references:
            telling = asyncio.ensure_future(self._tell(scenario))
            self._references[scenario.name] = telling
        return await self._references[scenario.name]

    async def _tell(self, scenario: Scenario) -> Reference:
        async with self._places, self.run(None) as run:
            await run.team.apply(scenario)
            await scenario.act(run.team)
            await run.team.until_state(scenario.ends, seconds=END_SECONDS)
            await run.quiet()
            end = await self._settled(run)
            writes = tuple(run.proxy.writes)
        broken = await broken_invariants(run.story)
        assert not broken, broken
        return Reference(end, writes, run.proxy.reads)

    async def _settled(self, run: Run) -> End:
        """The end, once the garbage collector is done, too."""
        await self._no_orphans(run)
        return await end_of(self.api, run.team.namespace)

    async def _no_orphans(self, run: Run) -> list[str]:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (broken := await broken_invariants(run.story)) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        return broken

    async def trial(
        self,
        group: Group,
        scenario: Scenario,
        fault: Fault | None = None,
        hand: Hand = no_hand,
        name: str = "",
        check: Check = same_end,
        around: Around = as_it_is,
        like: Scenario | None = None,
    ) -> Outcome:
        """Tell the story under the fault; whatever goes wrong is in the outcome.

        It must end as its scenario does without the fault, or as the one that it is ``like``.
        """
        expected = await self.reference(like or scenario)
        trying = partial(self._once, group, scenario, expected, fault, hand, name, check, around)
        outcome = await trying()
        # How many writes there are differs with how fast things happen.
        return outcome if outcome.tried else await trying()

    async def _once(
        self,
        group: Group,
        scenario: Scenario,
        expected: Reference,
        fault: Fault | None,
        hand: Hand,
        name: str,
        check: Check,
        around: Around,
    ) -> Outcome:
        async with self._places:
            began = time.monotonic()
            named = f"{scenario.name}, {name or fault}"
            struck: list[str] = []
            broken: list[str] = []
            tried = False
            try:
                async with self.run(fault, around) as run:
                    broken = await self._under(group, run, scenario, expected, hand, check)
                    struck, tried = run.proxy.struck, fault is None or run.proxy.has_struck
                    if broken:
                        self._keep_log(run, named, broken)
            except Exception:
                broken, tried = [traceback.format_exc(limit=-3)], True
            seconds = time.monotonic() - began
        outcome = Outcome(group, named, tried, broken, seconds, ", ".join(struck[:3]))
        print(_told(outcome), flush=True)
        return outcome

    async def _under(
        self,
        group: Group,
        run: Run,
        scenario: Scenario,
        expected: Reference,
        hand: Hand,
        check: Check,
    ) -> list[str]:
        await run.team.apply(scenario)
        interfering = asyncio.ensure_future(hand(run))
        try:
            await scenario.act(run.team)
            await interfering
            problem = await self._until_end(run, scenario, expected, check)
        except TimeoutError as error:
            problem = [str(error), *await self._differences(run, expected, check)]
        finally:
            interfering.cancel()
        if group in NEVER_ENDS and run.operator.ended:
            problem.append(f"the operator ended by itself: {run.operator.ended}")
        return problem or await self._no_orphans(run)

    async def _until_end(
        self, run: Run, scenario: Scenario, expected: Reference, check: Check
    ) -> list[str]:
        """Until everything is as without the fault, and stays so."""

        async def ended() -> bool:
            if await run.team.state() != scenario.ends:
                return False
            return not await self._differences(run, expected, check)

        async def struck() -> bool:
            return run.proxy.fault is None or run.proxy.has_struck

        await until("the same end as without the fault", ended, END_SECONDS)
        try:
            await until("struck", struck, STRIKE_SECONDS, every=0.1)
        except TimeoutError:
            return []
        await run.quiet()
        return await self._differences(run, expected, check)

    async def _differences(self, run: Run, expected: Reference, check: Check) -> list[str]:
        return check(expected.end, await end_of(self.api, run.team.namespace))

    @asynccontextmanager
    async def run(self, fault: Fault | None, around: Around = as_it_is) -> AsyncIterator[Run]:
        """A namespace with an operator whose way to the API server leads through a proxy."""
        number = next(self._numbers)
        namespace = f"faults-{self.seed}-{number}"
        folder = self.folder / namespace
        folder.mkdir(parents=True)
        proxy = Proxy(self.connections, fault)
        await proxy.start()
        usual = Surroundings(proxy.address, folder, namespace, (namespace,))
        operator = OperatorProcess(around(usual))
        proxy.kill = operator.kill
        proxy.stop = lambda: operator.signal(signal.SIGSTOP)
        proxy.go_on = lambda: operator.signal(signal.SIGCONT)
        await self.create_namespace(namespace)
        operator.start()
        team = Team(self.api, namespace)
        try:
            yield Run(team, proxy, operator, Story(self.api, namespace, self.history))
        finally:
            await operator.close()
            await proxy.close()
            await self.api.delete("namespaces", None, namespace)
            self.history.forget(namespace)

    async def create_namespace(self, name: str) -> None:
        """With the claim that every pod mounts."""
        await self.api.create(
            "namespaces",
            None,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        )
        await self.api.create("persistentvolumeclaims", name, claim("adapters"))

    def _keep_log(self, run: Run, named: str, broken: list[str]) -> None:
        told = "\n".join([named, *broken, *run.proxy.writes, run.operator.log.read_text()])
        (self.folder / f"{run.team.namespace}.broken").write_text(told)


def _told(outcome: Outcome) -> str:
    word = "BROKEN" if outcome.broken else "ok" if outcome.tried else "not reached"
    struck = f" ({outcome.struck})" if outcome.struck else ""
    lines = [f"  {word}: {outcome.name}{struck}, {outcome.seconds:.0f} s"]
    return "\n".join([*lines, *(f"    {each}" for each in outcome.broken)])
