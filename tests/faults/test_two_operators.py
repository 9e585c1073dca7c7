"""An operator is stopped past its lease, another acts, and the first wakes up and goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tunesmith.api.job_status import JobState

from tests.faults.api_server import until
from tests.faults.conftest import Choice
from tests.faults.fault import Effect, Group, Moment, RequestFault
from tests.faults.operator_process import OperatorProcess
from tests.faults.proxy import Proxy
from tests.faults.scenario import SERVED
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Run, Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")


#: What the first has begun when it wakes up is through in this time, and its process ends.
WAKES_SECONDS = 3.0


async def with_a_second(run: Run) -> None:
    """Another operator for the same namespace, which waits for the same lease."""
    proxy = Proxy(run.proxy.upstream)
    await proxy.start()
    around = run.operator.surroundings
    folder = around.folder / "second"
    folder.mkdir()
    second = OperatorProcess(
        replace(around, address=proxy.address, folder=folder, host_name="second")
    )
    second.start()
    try:
        await run.team.until_state(JobState.READY)
        await run.team.until_served()
        await run.quiet()
        if run.proxy.has_struck:
            await _until_the_first_has_gone_on(run)
    finally:
        await second.close()
        await proxy.close()


async def _until_the_first_has_gone_on(run: Run) -> None:
    """It may tell the server what it knew before it was stopped: the second puts that right."""

    async def has_gone_on() -> bool:
        return run.proxy.went_on

    await until("the first has gone on", has_gone_on, 60)
    await asyncio.sleep(WAKES_SECONDS)
    await run.team.until_served()


async def test_an_operator_that_wakes_up_after_its_lease_undoes_nothing(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    writes = len((await stage.reference(SERVED)).writes)
    points = [
        RequestFault(Effect.FREEZE, moment, number)
        for number in range(1, writes + 1, 4)
        for moment in Moment
    ]
    if choice.selection:
        pytest.skip("a lease takes its time to expire")
    trials = [
        Trial(Group.OPERATORS, SERVED, fault, hand=with_a_second, may_lose_lease=True)
        for fault in points
    ]
    tally.require_right(await stage.hold_all(trials))
