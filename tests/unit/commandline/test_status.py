"""What status shows: where it stands, what somebody has to do, and where it is served."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.commandline.status import is_finished, lines, overview

from tests.unit.operator import given

ENDPOINT = "http://support-vllm.team.svc/v1"


def job(state: str, **status: Any) -> dict[str, Any]:
    raw = given.finetunejob(status={"state": state, **status}).to_json()
    return {"kind": "FineTuneJob", **raw}


def condition(type_: str, status: str, message: str, reason: str = "Because") -> dict[str, str]:
    moment = given.moment(0)
    told = {"type": type_, "status": status, "reason": reason, "message": message}
    return {**told, "lastTransitionTime": moment}


def deployment(**status: Any) -> dict[str, Any]:
    raw = given.adapterdeployment("support").to_json()
    return {"kind": "AdapterDeployment", **raw, "status": {"endpoint": ENDPOINT, **status}}


def served(**changes: Any) -> dict[str, Any]:
    fields = {"name": "triage", "version": "aaaaaaaaaaaa", "digest": given.DIGEST, "job": "triage"}
    counts = {"replicasReady": 1, "replicasWanted": 2}
    return {**fields, "uri": "pvc://adapters/x", **counts, **changes}


def text(raw: dict[str, Any], *deployments: dict[str, Any]) -> str:
    """In one line, as where lines break is for the eye."""
    return " ".join(" ".join(lines(raw, deployments)).split())


def test_a_job_that_trains_says_how_far_it_is_and_how_it_fits() -> None:
    progress = {"phase": "Training", "step": 30, "totalSteps": 120, "percent": 25, "eta": "9m"}
    told = text(job("Training", **given.prepared(progress=progress)))
    assert told.startswith("FineTuneJob triage: Training")
    assert "step 30 of 120 (25%), 9m left" in told
    assert "LoRA, micro-batch 4 x accumulation 2" in told
    assert "40.0 GiB, predicted" in told


def test_a_condition_that_asks_for_something_is_shown_with_its_remedy_once() -> None:
    remedy = "The data waits for somebody's approval. Look at it, and approve it."
    told = text(
        job(
            "AwaitingReview",
            conditions=[
                condition("Prepared", "True", "The data is ready."),
                condition("Reviewed", "False", remedy, "NotApproved"),
                condition("Succeeded", "False", remedy, "NotApproved"),
                condition("Ready", "False", "There is no adapter yet.", "NotTrained"),
                condition("Reconciling", "True", "It goes on."),
            ],
        )
    )
    assert told.count(remedy) == 1
    assert "Reviewed False, NotApproved" in told
    assert "The data is ready." not in told
    assert "It goes on." not in told
    assert "There is no adapter yet." not in told
    assert "kubectl tunesmith approve triage" in told


@pytest.mark.parametrize("alarm", ["Stalled", "Warning", "Suspended"])
def test_alarms_are_shown_when_they_hold_and_not_when_they_do_not(alarm: str) -> None:
    for status, shown in (("True", True), ("False", False)):
        told = text(job("Waiting", conditions=[condition(alarm, status, "Mend it.")]))
        assert ("Mend it." in told) is shown


def test_a_verdict_is_shown_with_its_figures_and_what_to_change() -> None:
    evaluation = {
        "name": "triage-aaaaaaaa",
        "verdict": "Failed",
        "metric": "TokenF1",
        "base": 70.04,
        "promptedBase": 75,
        "adapter": 74,
        "difference": -1,
        "confidenceInterval": {"lower": -3, "upper": 1},
        "recommendation": {
            "action": "MoreEpochs",
            "field": "training.epochs",
            "from": 1,
            "to": 2,
            "because": "the loss still fell",
        },
    }
    told = text(job("Rejected", evaluation=evaluation))
    assert "Failed: -1.0 points (-3.0 to +1.0); base 70.0, prompted 75.0, adapter 74.0" in told
    assert "MoreEpochs of training.epochs from 1.0 to 2.0: the loss still fell" in told


def test_a_job_says_where_it_is_served_and_where_it_is_not() -> None:
    refused = {"name": "triage", "reason": "RankTooHigh", "message": "Raise maxLoraRank."}
    told = text(
        job("Ready"),
        deployment(adapters=[served(), served(name="other", job="other")]),
        deployment(notServed=[refused]),
    )
    assert f"support/triage: aaaaaaaaaaaa Promoted, 1 of 2 replicas, at {ENDPOINT}" in told
    assert "not support, RankTooHigh: Raise maxLoraRank." in told
    assert "support/other" not in told


def test_a_deployment_shows_each_version_with_its_share_and_its_error() -> None:
    canary = served(state="Canary", weight=10, lastError="NotFinite: a weight is no number")
    told = text(deployment(state="Degraded", adapters=[canary], readyReplicas=2, replicas=2))
    assert "aaaaaaaaaaaa Canary 10%, 1 of 2 replicas, NotFinite: a weight is no number" in told


def test_an_object_that_nobody_has_seen_says_so() -> None:
    raw = {"kind": "EvalRun", **given.evalrun().to_json()}
    del raw["status"]
    assert "not seen by the operator yet" in text(raw)


def test_the_overview_has_a_line_for_each_object() -> None:
    found = overview([job("Training"), deployment(state="Ready", adapterCount=3)])
    assert [line.split()[:3] for line in found] == [
        ["KIND", "NAME", "STATE"],
        ["FineTuneJob", "triage", "Training"],
        ["AdapterDeployment", "support", "Ready"],
    ]


@pytest.mark.parametrize(
    ("raw", "finished"),
    [
        (job("Training"), False),
        (job("Rejected"), True),
        (job("Ready"), True),
        (deployment(state="Ready"), False),
    ],
)
def test_watching_ends_where_nothing_follows(raw: dict[str, Any], finished: bool) -> None:
    assert is_finished(raw) is finished
