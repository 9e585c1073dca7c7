"""Nodes go, pods are evicted, storage is full, and people lay hands on what the operator made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import ExitCode, Reason

from tests.faults import hands
from tests.faults.conftest import Choice
from tests.faults.end import SERVING
from tests.faults.fault import Group
from tests.faults.scenario import JUDGED, REJECTED, SERVED, Scenario
from tests.faults.stage import Stage
from tests.faults.tally import Tally
from tests.faults.trial import Check, Hand, Trial, no_hand
from tests.unit.operator import given

pytestmark = pytest.mark.asyncio(loop_scope="session")

PREPARING = hands.state(JobState.PREPARING)
READY = hands.state(JobState.READY)
IS_REJECTED = hands.state(JobState.REJECTED)
AT_ONCE = {"gracePeriodSeconds": 0}
FULL = replace(
    JUDGED,
    name="trained once there is room",
    simulation={
        "exit-code": str(int(ExitCode.DATA_UNREACHABLE)),
        "only": "train",
        "only-attempt": "1",
        "failure-message": given.failed(
            FailureClass.DATA_UNREACHABLE, Reason.OUTPUT_NOT_WRITABLE, "The claim is full."
        ).to_line(),
    },
)


@dataclass(frozen=True)
class Deed:
    """What is done, to which job, and what must come of it."""

    name: str
    hand: Hand
    scenario: Scenario = hands.SLOWLY
    check: Check = hands.same_outcome
    #: Whose end it must come to.
    like: Scenario = JUDGED


def labels(**changes: str | None) -> dict[str, object]:
    return {"metadata": {"labels": {f"tunesmith.dev/{key}": to for key, to in changes.items()}}}


def noted(what: str, text: str | None) -> dict[str, object]:
    return {"metadata": {"annotations": {f"tunesmith.dev/{what}": text}}}


SURROUNDINGS = [
    Deed("pod evicted", hands.evict_the_pod),
    Deed("pod deleted", hands.deleted("pods", hands.TRAINS, hands.trains, **AT_ONCE)),
    Deed("node lost", hands.lose_the_node, hands.ON_DOOMED_NODES),
    Deed("pod does not end", hands.pod_does_not_end, hands.NOT_STARTED),
    Deed("image missing", hands.no_image, hands.NOT_STARTED),
    Deed("claim missing", hands.claim_comes_later, hands.LATER_CLAIM),
    Deed("claim full", no_hand, FULL),
    Deed("dataset's ConfigMap deleted", hands.config_map_goes_and_comes, hands.FROM_CONFIG_MAP),
]
DELETIONS = [
    Deed("Job of preparation deleted", hands.deleted("jobs", hands.PREPARES, PREPARING)),
    Deed("Job of training deleted", hands.deleted("jobs", hands.TRAINS, hands.trains)),
    Deed("Job of evaluation deleted", hands.deleted("jobs", hands.EVALUATES, hands.evaluates)),
    Deed("EvalRun deleted", hands.deleted("evalruns", "", hands.evaluates)),
    Deed("every Job deleted once Ready", hands.deleted("jobs", hands.TRAINS, READY)),
    Deed("EvalRun deleted once Ready", hands.deleted("evalruns", "", READY), check=hands.same_job),
]
EDITS = [
    Deed(
        f"{what} of the Job of {whose}",
        hands.patched("jobs", selector, when, patch),
    )
    for whose, selector, when in (
        ("training", hands.TRAINS, hands.trains),
        ("evaluation", hands.EVALUATES, hands.evaluates),
    )
    for what, patch in (
        ("attempt removed", labels(attempt=None)),
        ("attempt falsified", labels(attempt="seven")),
        ("counted failures falsified", noted("counted-failures", "many")),
        ("counted failures removed", noted("counted-failures", None)),
        ("memory plan falsified", noted("memory-plan", "[]")),
        ("every label removed", {"metadata": {"labels": None}}),
    )
] + [
    Deed("Job of training suspended and resumed", hands.suspend_the_training_for_a_while),
    Deed(
        "owner's label removed from the Job of training",
        hands.patched("jobs", hands.TRAINS, hands.trains, labels(finetunejob=None)),
    ),
    Deed(
        "owner's label removed from the EvalRun",
        hands.told_and_deleted(
            hands.patched("evalruns", "", hands.evaluates, labels(finetunejob=None))
        ),
    ),
    Deed(
        "finalizer removed from the pod",
        hands.patched("pods", hands.TRAINS, hands.trains, {"metadata": {"finalizers": None}}),
    ),
    Deed(
        "owner removed from the Job of training", hands.disowned("jobs", hands.TRAINS, hands.trains)
    ),
    Deed(
        "owner removed from the Job of evaluation",
        hands.disowned("jobs", hands.EVALUATES, hands.evaluates),
    ),
    Deed(
        "owner removed from the EvalRun",
        hands.told_and_deleted(hands.disowned("evalruns", "", hands.evaluates)),
    ),
]
WIPES = [
    *(
        Deed(f"status wiped {word}", hands.wiped("finetunejobs", when))
        for word, when in (
            ("while it prepares", PREPARING),
            ("while it trains", hands.trains),
            ("while it is judged", hands.evaluates),
            ("once Ready", READY),
        )
    ),
    Deed("status of the EvalRun wiped", hands.wiped("evalruns", hands.evaluates)),
    Deed("status of the EvalRun wiped once Ready", hands.wiped("evalruns", READY)),
]
#: All of what one AdapterDeployment has is told of in the end: what is gone has to come back.
SERVERS = [
    Deed(f"{what} {word}", hand, hands.SERVED_SLOWLY, like=SERVED)
    for word, when in (("while it trains", hands.trains), ("once served", hands.served))
    for what, hand in (
        ("server's ConfigMap deleted", hands.deleted("configmaps", SERVING, when)),
        ("server's Service deleted", hands.deleted("services", SERVING, when)),
        (
            "server's PodDisruptionBudget deleted",
            hands.deleted("poddisruptionbudgets", SERVING, when),
        ),
        ("status of the AdapterDeployment wiped", hands.wiped("adapterdeployments", when)),
    )
] + [
    Deed("server deleted", hands.delete_the_server, SERVED, like=SERVED),
    Deed("server scaled to zero", hands.server_edited(hands.to_no_replicas), SERVED, like=SERVED),
    Deed(
        "server's command edited",
        hands.server_edited(hands.to_another_command),
        SERVED,
        like=SERVED,
    ),
    Deed(
        "server's ConfigMap deleted once rejected",
        hands.deleted("configmaps", SERVING, IS_REJECTED),
        REJECTED,
        like=REJECTED,
    ),
    Deed(
        "status of the AdapterDeployment wiped once rejected",
        hands.wiped("adapterdeployments", IS_REJECTED),
        REJECTED,
        like=REJECTED,
    ),
    Deed(
        "status of the job wiped once rejected",
        hands.wiped("finetunejobs", IS_REJECTED),
        REJECTED,
        like=REJECTED,
    ),
]


@pytest.mark.parametrize(
    "deeds",
    [SURROUNDINGS, DELETIONS, EDITS, WIPES, SERVERS],
    ids=("around", "deletions", "edits", "wipes", "servers"),
)
async def test_a_job_comes_to_its_end_whatever_is_done_to_its_children(
    stage: Stage, tally: Tally, choice: Choice, deeds: list[Deed]
) -> None:
    trials = [
        Trial(Group.HAND, each.scenario, None, each.hand, each.name, each.check, like=each.like)
        for each in choice.of(deeds)
    ]
    tally.require_right(await stage.hold_all(trials))
