"""The operator misses events, or hears them twice, late or in another order."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import Choice
from tests.faults.fault import Disturbance, Group, WatchFault
from tests.faults.scenario import DELETED, FAILED, JUDGED, SUSPENDED
from tests.faults.tally import Tally
from tests.faults.trial import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOLD = (JUDGED, FAILED, SUSPENDED, DELETED)


@pytest.mark.parametrize("disturbance", Disturbance)
async def test_what_a_watch_does_not_tell_is_found_out(
    stage: Stage, tally: Tally, choice: Choice, disturbance: Disturbance
) -> None:
    scenarios = choice.of(list(TOLD))[:1] if choice.selection else TOLD
    trials = [
        stage.trial(Group.WATCH, scenario, WatchFault(disturbance, choice.seed + number))
        for number, scenario in enumerate(scenarios)
    ]
    tally.require_right(await asyncio.gather(*trials))
