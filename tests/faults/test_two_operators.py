"""An operator is stopped past its lease, another acts, and the first wakes up and goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tunesmith.api.job_status import JobState

from tests.faults.conftest import Choice
from tests.faults.fault import Effect, Group, Moment, RequestFault
from tests.faults.operator_process import OperatorProcess
from tests.faults.proxy import Proxy
from tests.faults.scenario import JUDGED
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Run, Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
        await run.quiet()
    finally:
        await second.close()
        await proxy.close()


async def test_an_operator_that_wakes_up_after_its_lease_undoes_nothing(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    writes = len((await stage.reference(JUDGED)).writes)
    points = [
        RequestFault(Effect.FREEZE, moment, number)
        for number in range(1, writes + 1, 4)
        for moment in Moment
    ]
    if choice.selection:
        pytest.skip("a lease takes its time to expire")
    trials = [Trial(Group.OPERATORS, JUDGED, fault, hand=with_a_second) for fault in points]
    tally.require_right(await stage.hold_all(trials))
