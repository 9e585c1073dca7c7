"""Decides what is done about an AdapterDeployment. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from tunesmith.adapterdeployment.decision import (
    Decision,
    Observed,
    apply_list,
    calls,
    decide,
    delete_list,
)
from tunesmith.adapterdeployment.merging import merge_job
from tunesmith.adapterdeployment.status import Merges, status_of
from tunesmith.api.adapterdeployment import (
    AdapterDeploymentStatus,
    ServingState,
    VersionState,
)
from tunesmith.kube.advance import Advance
from tunesmith.kube.conditions import find
from tunesmith.kube.plan import Object, Plan
from tunesmith.settings import Settings

#: While something is on its way it is looked at often: a look costs one request per replica.
QUICK = timedelta(seconds=0.5)
QUICK_FOR = timedelta(seconds=60)
#: How often a canary's traffic is looked at.
CANARY = timedelta(seconds=5)


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What to apply, whom to call, and what status says."""
    decision = decide(observed, now)
    merges = [(each, each.next(settings, now)) for each in decision.merges]
    status = status_of(observed, decision, merges, settings, now)
    called = [] if observed.foreign else calls(observed, decision, now)
    return Plan(
        status=status,
        create=_merge_jobs(observed, merges, settings),
        apply=apply_list(observed, decision, settings),
        delete=delete_list(observed, decision, autoscaled=bool(status.autoscaled)),
        annotate=called,
        requeue_after=QUICK
        if called
        else _next_look(status, decision, [each for _, each in merges], settings, now),
    )


def _merge_jobs(observed: Observed, merges: Merges, settings: Settings) -> list[Object]:
    return [
        manifest
        for merging, advance in merges
        if advance.start
        for manifest in merge_job(observed.deployment, merging.candidate, advance.start, settings)
    ]


def _next_look(
    status: AdapterDeploymentStatus,
    decision: Decision,
    merges: list[Advance],
    settings: Settings,
    now: datetime,
) -> timedelta | None:
    looks = [each.requeue_after for each in merges if each.requeue_after]
    if any(each.state is VersionState.CANARY for each in decision.versions):
        looks.append(CANARY)
    match status.state:
        case ServingState.READY | ServingState.SCALED_TO_ZERO:
            pass
        case ServingState.UPDATING:
            looks.append(_pause(status, settings, now))
        case _:
            looks.append(settings.progress_interval)
    return min(looks, default=None)


def _pause(status: AdapterDeploymentStatus, settings: Settings, now: datetime) -> timedelta:
    """Adapters join within seconds, pods start within minutes."""
    ready = find(status.conditions, "Ready")
    if ready is None or now - datetime.fromisoformat(ready.last_transition_time) < QUICK_FOR:
        return QUICK
    return settings.progress_interval
