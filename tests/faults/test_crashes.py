"""The operator is killed at every write of a job's life, before the API server has it and after."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Choice
from tests.faults.fault import Effect, Group, Moment, RequestFault
from tests.faults.scenario import REJECTED, SCENARIOS, Scenario
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[each.name for each in SCENARIOS])
async def test_an_operator_that_is_killed_at_any_write_changes_nothing(
    stage: Stage, tally: Tally, choice: Choice, scenario: Scenario
) -> None:
    reference = await stage.reference(scenario)
    points = [
        RequestFault(Effect.KILL, moment, number)
        for number in range(1, len(reference.writes) + 1)
        for moment in Moment
    ]
    trials = [Trial(Group.CRASH, scenario, fault) for fault in choice.of(points)]
    tally.require_right(await stage.hold_all(trials))


async def test_an_adapter_that_is_rejected_is_never_served_whenever_the_operator_is_killed(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    """Every third write: until the verdict all are those of the job that passes."""
    writes = len((await stage.reference(REJECTED)).writes)
    points = [
        RequestFault(Effect.KILL, moment, number)
        for number in range(1, writes + 1, 3)
        for moment in Moment
    ]
    trials = [Trial(Group.CRASH, REJECTED, fault) for fault in choice.of(points)]
    tally.require_right(await stage.hold_all(trials))
