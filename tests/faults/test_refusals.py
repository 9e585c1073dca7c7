"""Requests of the operator are refused, cut off or left without an answer."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.conftest import Choice
from tests.faults.fault import Effect, Group, Moment, RequestFault, Requests
from tests.faults.scenario import JUDGED, RETRIED, Scenario
from tests.faults.stage import Reference, Stage
from tests.faults.tally import Tally
from tests.faults.trial import Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSALS = (409, 429, 500, 503)
#: Longer in a row than the operator repeats one request.
MANY = 12


def refused_writes(reference: Reference) -> list[RequestFault]:
    """Every write once before and once after its commit, with each answer in turn."""
    statuses = itertools.cycle((*REFUSALS, None))
    points = []
    for number in range(1, len(reference.writes) + 1):
        for moment in Moment:
            status = next(statuses)
            effect = Effect.ANSWER if status else Effect.SEVER
            points.append(RequestFault(effect, moment, number, status or 0))
    return points


def refused_reads(reference: Reference) -> list[RequestFault]:
    """Some of the reads, and many in a row."""
    chosen = range(1, reference.reads + 1, max(1, reference.reads // 6))
    single = [
        RequestFault(Effect.ANSWER, Moment.BEFORE, number, 500, Requests.READS) for number in chosen
    ]
    several = [
        RequestFault(Effect.ANSWER, Moment.BEFORE, first, status, requests, MANY)
        for first, status, requests in (
            (1, 500, Requests.READS),
            (3, 429, Requests.READS),
            (1, 503, Requests.WRITES),
            (4, 429, Requests.WRITES),
        )
    ]
    return [*single, *several]


@pytest.mark.parametrize("scenario", [JUDGED, RETRIED], ids=lambda each: each.name)
async def test_a_write_that_is_refused_or_cut_off_is_made_good(
    stage: Stage, tally: Tally, choice: Choice, scenario: Scenario
) -> None:
    points = refused_writes(await stage.reference(scenario))
    trials = [Trial(Group.ANSWER, scenario, fault) for fault in choice.of(points)]
    tally.require_right(await stage.hold_all(trials))


async def test_reads_that_are_refused_are_read_again(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    points = refused_reads(await stage.reference(JUDGED))
    trials = [Trial(Group.ANSWER, JUDGED, fault) for fault in choice.of(points)]
    tally.require_right(await stage.hold_all(trials))


async def test_a_request_that_is_never_answered_holds_nothing_up_for_ever(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    points = [
        RequestFault(Effect.HANG, moment, number, requests=requests)
        for moment, number, requests in (
            (Moment.BEFORE, 2, Requests.WRITES),
            (Moment.AFTER, 2, Requests.WRITES),
            (Moment.AFTER, 3, Requests.WRITES),
            (Moment.BEFORE, 5, Requests.READS),
        )
    ]
    if choice.selection:
        points = points[1:2]
    trials = [Trial(Group.ANSWER, JUDGED, fault) for fault in points]
    tally.require_right(await stage.hold_all(trials))
