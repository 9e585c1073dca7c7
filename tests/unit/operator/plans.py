"""Plans for a FineTuneJob in all its stages, for tests that say what they are to hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.api.objects import Condition
from tunesmith.finetunejob.decision import Observed
from tunesmith.finetunejob.plan import plan
from tunesmith.kube.conditions import find
from tunesmith.kube.observed_attempt import latest_attempt
from tunesmith.kube.plan import Plan

from tests.unit.operator import given

AT_ONCE = {"preflight": "Skip"}


def seen(
    job: FineTuneJob,
    training: Sequence[given.Raw] = (),
    preparation: Sequence[given.Raw] = (),
    pods: Sequence[given.Raw] = (),
    **more: Any,
) -> Observed:
    """As ``observe`` reads it: the Jobs of both stages, and the pods of all of them."""
    status = job.status
    return Observed(
        job,
        latest_attempt(list(training), list(pods), status),
        list(training),
        preparation=latest_attempt(list(preparation), list(pods), status.preparation),
        preparation_jobs=list(preparation),
        pods=list(pods),
        **more,
    )


def planned(observed: Observed) -> Plan:
    return plan(observed, given.SETTINGS, given.NOW)


def status_of(made: Plan) -> FineTuneJobStatus:
    assert isinstance(made.status, FineTuneJobStatus)
    return made.status


def condition(made: Plan, type_: str) -> Condition:
    found = find(made.status.conditions, type_)
    assert found is not None, f"no condition {type_}"
    return found


def names(made: Plan) -> list[tuple[str, str]]:
    return [(each["kind"], each["metadata"]["name"]) for each in made.create]


def created_job(made: Plan) -> given.Raw:
    (job,) = [each for each in made.create if each["kind"] == "Job"]
    return dict(job)


def created_plan(made: Plan) -> given.Raw:
    """What the trainer reads."""
    return given.plan_of(created_job(made))


def again(made: Plan, **more: Any) -> FineTuneJob:
    """The job as it is after this plan's status was written."""
    return given.finetunejob(status=made.status.to_json(), **more)
