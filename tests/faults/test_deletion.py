"""Jobs and namespaces are deleted in every phase: nothing stays behind, nothing comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tunesmith.api.job_status import JobState

from tests.faults import hands
from tests.faults.conftest import Choice
from tests.faults.fault import Group
from tests.faults.scenario import (
    ADMITTED,
    DELETED,
    DELETED_BESIDE_A_SERVER,
    FAILED,
    JOB,
    JUDGED,
    MERGED,
    QUEUED,
    REJECTED,
    RETRIED,
    SERVED,
    SUSPENDED,
    Scenario,
    Team,
    approve,
    nothing,
)
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Hand, Run, Trial

pytestmark = pytest.mark.asyncio(loop_scope="session")


def deleted_when(when: hands.When) -> Hand:
    async def hand(run: Run) -> None:
        await when(run)
        await run.team.api.delete("finetunejobs", run.team.namespace, JOB)

    return hand


async def suspend_for_good(team: Team) -> None:
    await team.until_trains()
    await team.suspend(True)


async def at_once(_: Run) -> None:
    """Before the operator has seen it."""


#: No node has that label.
NOWHERE = replace(JUDGED, nodes="faults.tunesmith.dev/nowhere")
PHASES: list[tuple[str, Scenario, hands.When]] = [
    ("at once", JUDGED, at_once),
    ("Pending", hands.SLOWLY, hands.state(JobState.PENDING, JobState.READY)),
    ("Preparing", hands.SLOWLY, hands.state(JobState.PREPARING)),
    ("AwaitingReview", replace(ADMITTED, act=nothing), hands.state(JobState.AWAITING_REVIEW)),
    ("Preflight", replace(ADMITTED, act=approve), hands.state(JobState.PREFLIGHT)),
    ("Queued", QUEUED, hands.state(JobState.QUEUED)),
    ("Waiting", NOWHERE, hands.state(JobState.WAITING)),
    ("training", hands.SLOWLY, hands.trains),
    ("Saving", hands.TOLD_OF, hands.saves),
    ("Retrying", RETRIED, hands.state(JobState.RETRYING, JobState.READY)),
    ("Evaluating", hands.SLOWLY, hands.state(JobState.EVALUATING, JobState.READY)),
    ("being judged", hands.SLOWLY, hands.evaluates),
    ("Suspended", replace(SUSPENDED, act=suspend_for_good), hands.state(JobState.SUSPENDED)),
    ("Ready", JUDGED, hands.state(JobState.READY)),
    ("Rejected", REJECTED, hands.state(JobState.REJECTED)),
    ("Failed", FAILED, hands.state(JobState.FAILED)),
    ("served", SERVED, hands.served),
]


async def test_a_job_that_is_deleted_in_any_phase_leaves_nothing(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    trials = [
        Trial(
            Group.DELETION,
            replace(scenario, ends=None),
            hand=deleted_when(when),
            named=f"deleted when {phase}",
            like=DELETED_BESIDE_A_SERVER if scenario.served else DELETED,
        )
        for phase, scenario, when in choice.of(PHASES)
    ]
    again = Trial(
        Group.DELETION,
        hands.SLOWLY,
        hand=hands.delete_and_apply_again,
        named="deleted and applied again",
        like=JUDGED,
    )
    tally.require_right(await stage.hold_all([*trials, again]))


async def test_an_adapterdeployment_that_is_deleted_in_any_phase_leaves_nothing(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    """The job goes on, as one does that nobody serves."""
    phases = [
        ("at once", hands.SERVED_SLOWLY, at_once),
        ("while its job trains", hands.SERVED_SLOWLY, hands.trains),
        ("while its job is judged", hands.SERVED_SLOWLY, hands.evaluates),
        ("while it merges", MERGED, hands.merges),
        ("once it serves", hands.SERVED_SLOWLY, hands.served),
        ("once it serves what is merged", MERGED, hands.served),
    ]
    trials = [
        Trial(
            Group.DELETION,
            scenario,
            hand=hands.no_longer_served(when),
            named=f"AdapterDeployment deleted {phase}",
            like=JUDGED,
        )
        for phase, scenario, when in choice.of(phases)
    ]
    again = Trial(
        Group.DELETION,
        SERVED,
        hand=hands.served_anew,
        named="AdapterDeployment deleted and applied again",
    )
    tally.require_right(await stage.hold_all([*trials, again]))


NAMESPACE_PHASES = (
    None, JobState.PENDING, JobState.PREPARING, JobState.EVALUATING, JobState.READY
)  # fmt: skip


async def test_a_namespace_that_is_deleted_in_any_phase_goes_and_hurts_no_other(
    stage: Stage, tally: Tally, choice: Choice
) -> None:
    trials = [
        Trial(
            Group.DELETION,
            JUDGED,
            hand=hands.namespace_deleted(phase),
            named=f"another namespace deleted when its job is {phase or 'new'}",
            around=lambda usual: replace(
                usual, namespaces=(*usual.namespaces, hands.doomed(usual.namespaces[0]))
            ),
        )
        for phase in choice.of(list(NAMESPACE_PHASES))
    ]
    tally.require_right(await stage.hold_all(trials))
