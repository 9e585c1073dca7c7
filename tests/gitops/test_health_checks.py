"""What Argo CD shows of our kinds: its own code runs the checks on statuses of a real cluster.

What no run showed is the planner's own (``planned``).
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any

import pytest
from tunesmith.api.evalrun import EvalState
from tunesmith.api.job_status import JobState
from tunesmith.api.serving_status import ServingState

from examples.demo.kubectl import Object, conditions
from tests.gitops import planned
from tests.gitops.argocd import ArgoCd, Health, Shown
from tests.gitops.recorded import recorded, scene

STATES: dict[str, type[StrEnum]] = {
    "FineTuneJob": JobState,
    "EvalRun": EvalState,
    "AdapterDeployment": ServingState,
}

#: By kind and state: what Argo CD is to show, and the condition whose sentence tells why.
SHOWN: dict[str, dict[StrEnum, tuple[Health, str]]] = {
    "FineTuneJob": {
        JobState.PENDING: (Health.PROGRESSING, "Succeeded"),
        JobState.PREPARING: (Health.PROGRESSING, "Succeeded"),
        JobState.AWAITING_REVIEW: (Health.SUSPENDED, "Reviewed"),
        JobState.PREFLIGHT: (Health.PROGRESSING, "Succeeded"),
        JobState.QUEUED: (Health.SUSPENDED, "Succeeded"),
        JobState.SUSPENDED: (Health.SUSPENDED, "Suspended"),
        JobState.TRAINING: (Health.PROGRESSING, "Succeeded"),
        JobState.SAVING: (Health.PROGRESSING, "Succeeded"),
        JobState.RETRYING: (Health.PROGRESSING, "Succeeded"),
        JobState.WAITING: (Health.DEGRADED, "Stalled"),
        JobState.EVALUATING: (Health.PROGRESSING, "Ready"),
        JobState.READY: (Health.HEALTHY, "Ready"),
        JobState.REJECTED: (Health.DEGRADED, "Stalled"),
        JobState.FAILED: (Health.DEGRADED, "Stalled"),
    },
    "EvalRun": {
        EvalState.PENDING: (Health.PROGRESSING, "Succeeded"),
        EvalState.RUNNING: (Health.PROGRESSING, "Succeeded"),
        EvalState.RETRYING: (Health.PROGRESSING, "Succeeded"),
        EvalState.WAITING: (Health.DEGRADED, "Stalled"),
        EvalState.PASSED: (Health.HEALTHY, "Passed"),
        EvalState.FAILED: (Health.DEGRADED, "Passed"),
        EvalState.INCONCLUSIVE: (Health.DEGRADED, "Passed"),
        EvalState.MEASURED: (Health.HEALTHY, "Succeeded"),
        EvalState.ERROR: (Health.DEGRADED, "Stalled"),
    },
    "AdapterDeployment": {
        ServingState.MERGING: (Health.PROGRESSING, "Ready"),
        ServingState.STARTING: (Health.PROGRESSING, "Ready"),
        ServingState.UPDATING: (Health.PROGRESSING, "Ready"),
        ServingState.WAITING: (Health.DEGRADED, "Stalled"),
        ServingState.DEGRADED: (Health.DEGRADED, "Stalled"),
        ServingState.READY: (Health.HEALTHY, "Ready"),
        ServingState.SCALED_TO_ZERO: (Health.SUSPENDED, "Ready"),
    },
}
#: Where the reason tells more than the state: what waits, and for whom.
SHOWN_BY_REASON = {
    "EvalRun/Pending-Queued": (Health.SUSPENDED, "Succeeded"),
    # What they wait for comes by itself.
    "EvalRun/Waiting-NotTrained": (Health.PROGRESSING, "Succeeded"),
    "AdapterDeployment/Waiting-NoAdapter": (Health.PROGRESSING, "Ready"),
}

SEEN = {scene(each): each for each in (planned.serving_without_one_adapter(), *recorded())}
SCENES = pytest.mark.parametrize("name", SEEN)


def state(raw: Object) -> StrEnum:
    return STATES[raw["kind"]](raw["status"]["state"])


def expected(name: str) -> tuple[Health, str]:
    raw = SEEN[name]
    return SHOWN_BY_REASON.get(name) or SHOWN[raw["kind"]][state(raw)]


@SCENES
def test_argo_cd_shows_the_health_of_every_state_and_the_condition_that_tells_why(
    argocd: ArgoCd, name: str
) -> None:
    health, told_by = expected(name)
    told = conditions(SEEN[name])[told_by]["message"]
    shown = argocd.shows(SEEN[name])
    assert shown.health == health
    assert shown.message.startswith(told)


@pytest.mark.parametrize("kind", STATES)
def test_no_state_of_the_api_is_left_out(kind: str) -> None:
    decided = set(SHOWN[kind])
    assert decided == set(STATES[kind])
    assert decided == {state(each) for each in SEEN.values() if each["kind"] == kind}
    assert set(SHOWN_BY_REASON) <= set(SEEN)


@SCENES
def test_a_status_of_an_older_spec_is_progressing(argocd: ArgoCd, name: str) -> None:
    changed = copy.deepcopy(SEEN[name])
    changed["metadata"]["generation"] += 1
    assert argocd.shows(changed).health is Health.PROGRESSING


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("status", [{}, {"status": {}}, {"status": {"conditions": []}}])
def test_an_object_that_nobody_has_looked_at_is_progressing(
    argocd: ArgoCd, kind: str, status: dict[str, Any]
) -> None:
    metadata = {"name": "new", "generation": 1}
    new = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": kind, "metadata": metadata, **status}
    assert argocd.shows(new) == Shown(Health.PROGRESSING, "The operator has not seen this yet.")


def test_what_is_served_with_a_warning_shows_both_sentences(argocd: ArgoCd) -> None:
    warned = planned.serving_more_than_a_batch_holds()
    ready, warning = (conditions(warned)[each]["message"] for each in ("Ready", "Warning"))
    assert argocd.shows(warned) == Shown(Health.HEALTHY, f"{ready} {warning}")
