"""One trial: a scenario told under a fault, and what its end is compared with."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.api_server import until
from tests.faults.end import End
from tests.faults.fault import Fault, Group
from tests.faults.invariants import Story
from tests.faults.operator_process import OperatorProcess, Surroundings
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario, Team

#: An operator that has written nothing for so long, and has nothing to wait for, is done.
QUIET_SECONDS = 1.2
QUIET_PATIENCE = 60.0


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
    #: The requests that were struck.
    struck: str = ""

    def __str__(self) -> str:
        word = "BROKEN" if self.broken else "ok" if self.tried else "not reached"
        struck = f" ({self.struck})" if self.struck else ""
        told = f"  {word}: {self.name}{struck}, {self.seconds:.0f} s"
        return "\n".join([told, *(f"    {each}" for each in self.broken)])


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
class Trial:
    """A scenario, and what befalls it: a fault on the operator's way, a hand, or surroundings."""

    group: Group
    scenario: Scenario
    fault: Fault | None = None
    hand: Hand = no_hand
    named: str = ""
    check: Check = same_end
    around: Around = as_it_is
    #: Whether the operator may lose its lease by it. It ends then, by design, and is started again.
    may_lose_lease: bool = False
    #: Whose end it must come to; its own scenario's if unset.
    like: Scenario | None = None

    @property
    def name(self) -> str:
        return f"{self.scenario.name}, {self.named or self.fault}"

    @property
    def model(self) -> Scenario:
        return self.like or self.scenario
