"""The operator is killed at every write of a job's life, before the API server has it and after."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import Choice
from tests.faults.fault import Effect, Group, Moment, RequestFault
from tests.faults.scenario import SCENARIOS, Scenario
from tests.faults.tally import Tally
from tests.faults.trial import Stage

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
    trials = [stage.trial(Group.CRASH, scenario, fault) for fault in choice.of(points)]
    tally.require_right(await asyncio.gather(*trials))
