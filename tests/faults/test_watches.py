"""The operator misses events, or hears them twice, late or in another order."""

from __future__ import annotations

import pytest

from tests.faults import hands
from tests.faults.conftest import Choice
from tests.faults.fault import Disturbance, Group, WatchFault
from tests.faults.scenario import DELETED, FAILED, JUDGED, MERGED, REJECTED, SERVED, SUSPENDED
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOLD = (SERVED, MERGED, FAILED, SUSPENDED, DELETED, REJECTED)


@pytest.mark.parametrize("disturbance", Disturbance)
async def test_what_a_watch_does_not_tell_is_found_out(
    stage: Stage, tally: Tally, choice: Choice, disturbance: Disturbance
) -> None:
    scenarios = choice.of(list(TOLD))[:1] if choice.selection else TOLD
    trials = [
        Trial(Group.WATCH, scenario, WatchFault(disturbance, choice.seed + number))
        for number, scenario in enumerate(scenarios)
    ]
    tally.require_right(await stage.hold_all(trials))


async def test_what_goes_while_a_watch_is_broken_is_missed_once_it_lists_again(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    """No event tells of it afterwards."""
    gone = (
        ("Job of training deleted", hands.deleted("jobs", hands.TRAINS, hands.trains)),
        ("Job of evaluation deleted", hands.deleted("jobs", hands.EVALUATES, hands.evaluates)),
        ("EvalRun deleted", hands.deleted("evalruns", "", hands.evaluates)),
    )
    trials = [
        Trial(
            Group.WATCH,
            hands.SLOWLY,
            WatchFault(Disturbance.LOST, choice.seed),
            hand,
            f"events lost and {name}",
            hands.same_outcome,
            like=JUDGED,
        )
        for name, hand in choice.of(list(gone))
    ]
    tally.require_right(await stage.hold_all(trials))
