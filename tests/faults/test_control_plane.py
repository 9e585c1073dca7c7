"""The API server is restarted or hangs, etcd forgets, definitions change, clocks are wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.faults import control_plane
from tests.faults.conftest import Choice
from tests.faults.control_plane import Disaster, Strike
from tests.faults.fault import Group
from tests.faults.hands import SERVED_SLOWLY, SLOWLY
from tests.faults.scenario import FAILED, RETRIED, SERVED, SUSPENDED, Scenario
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Around, Outcome, Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: In so long a silence nodes may be taken for lost, and their pods are unready from then on: KWOK
#: starts a pod once, where a kubelet would find it ready again. No server can be told of after it.
LONG_SILENCES = {"API server hangs for 60 s", "etcd compacted and API server restarted"}


def under_way(name: str) -> list[Scenario]:
    """All at once, each in a phase of its own."""
    first = SLOWLY if name in LONG_SILENCES else SERVED_SLOWLY
    return [first, RETRIED, FAILED, SUSPENDED]


async def struck_by(stage: Stage, strike: Strike, name: str) -> list[Outcome]:
    scenarios = under_way(name)
    await asyncio.gather(*(stage.reference(scenario) for scenario in scenarios))
    disaster = Disaster(strike, len(scenarios))
    trials = [
        Trial(Group.CONTROL_PLANE, scenario, hand=disaster.hand, named=name, may_lose_lease=True)
        for scenario in scenarios
    ]
    return await stage.hold_all(trials)


STRIKES: dict[str, Strike] = {
    "API server hangs for 60 s": control_plane.pause_api_server(60),
    "API server hangs for 5 s": control_plane.pause_api_server(5),
    "API server restarted": control_plane.restart_api_server,
    "etcd compacted": control_plane.compact_etcd,
    "etcd compacted and API server restarted": control_plane.compact_and_restart,
    "definitions upgraded": control_plane.upgrade_definitions,
}


@pytest.mark.parametrize("name", STRIKES)
async def test_what_happens_to_the_control_plane_changes_no_end(
    stage: Stage, tally: Tally, name: str
) -> None:
    tally.require_right(await struck_by(stage, STRIKES[name], name))


#: How far the clock is ahead. One that is behind by so much lets a retry wait for so much longer.
CLOCKS = [
    (SERVED, 3600.0),
    (SERVED, -3600.0),
    (SUSPENDED, 30.0),
    (SUSPENDED, -30.0),
    (RETRIED, 3600.0),
    (RETRIED, -20.0),
    (FAILED, -10.0),
]


def ahead(seconds: float) -> Around:
    return lambda usual: replace(usual, clock_seconds=seconds)


async def test_a_clock_that_is_wrong_changes_no_end(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    trials = [
        Trial(
            Group.CONTROL_PLANE,
            scenario,
            named=f"clock {seconds:+.0f} s",
            around=ahead(seconds),
        )
        for scenario, seconds in choice.of(CLOCKS)
    ]
    tally.require_right(await stage.hold_all(trials))
