"""Requests of the operator are refused, cut off or left without an answer."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.faults.conftest import Choice
from tests.faults.fault import Effect, Group, Moment, RequestFault, Requests
from tests.faults.scenario import JUDGED, REJECTED, RETRIED, SERVED
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


#: Each costs the operator its whole patience with a request.
SILENCES = [
    RequestFault(Effect.HANG, Moment.BEFORE, 2),
    RequestFault(Effect.HANG, Moment.AFTER, 2),
    RequestFault(Effect.HANG, Moment.AFTER, 3),
    RequestFault(Effect.HANG, Moment.BEFORE, 5, requests=Requests.READS),
]


async def test_a_request_that_is_refused_cut_off_or_never_answered_is_made_good(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    judged, served, retried, rejected = await asyncio.gather(
        *(stage.reference(each) for each in (JUDGED, SERVED, RETRIED, REJECTED))
    )
    silences = [] if choice.selection else SILENCES
    points = [
        *((JUDGED, fault) for fault in silences),
        *((SERVED, fault) for fault in choice.of(refused_writes(served))),
        *((RETRIED, fault) for fault in choice.of(refused_writes(retried))),
        # Until the verdict all writes are those of the job that passes.
        *((REJECTED, fault) for fault in choice.of(refused_writes(rejected)[::3])),
        *((JUDGED, fault) for fault in choice.of(refused_reads(judged))),
    ]
    trials = [Trial(Group.ANSWER, scenario, fault) for scenario, fault in points]
    tally.require_right(await stage.hold_all(trials))
