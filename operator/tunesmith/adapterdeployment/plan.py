"""Decides what is done about an AdapterDeployment. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tunesmith.adapterdeployment.changes import apply_list, calls, delete_list
from tunesmith.adapterdeployment.decision import Decision, Observed, decide
from tunesmith.adapterdeployment.errands import advances, errand_template
from tunesmith.adapterdeployment.merging import merge_job
from tunesmith.adapterdeployment.retirement import removal_job
from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.adapterdeployment.status import Errands, status_of
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.objects import PodTemplate
from tunesmith.api.serving_status import AdapterDeploymentStatus, ServingState, VersionState
from tunesmith.kube.advance import Advance
from tunesmith.kube.attempts import Start
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
    merges = advances(decision.merges, settings, now)
    removals = advances(decision.removals, settings, now)
    status = status_of(observed, decision, merges, removals, settings, now)
    called = [] if observed.foreign else calls(observed, decision, now)
    return Plan(
        status=status,
        create=[
            *_jobs(observed, merges, merge_job, settings),
            *_jobs(observed, removals, removal_job, settings),
        ],
        apply=apply_list(observed, decision, settings),
        delete=delete_list(observed, decision, autoscaled=bool(status.autoscaled)),
        obsolete=[
            child for errand, step in (*merges, *removals) for child in errand.outdated(step)
        ],
        annotate=called,
        requeue_after=QUICK
        if called or _is_unloading(observed)
        else _next_look(
            status, decision, [each for _, each in (*merges, *removals)], settings, now
        ),
    )


def _jobs(
    observed: Observed,
    errands: Errands,
    build: Callable[[AdapterDeployment, Candidate, Start, PodTemplate, Settings], list[Object]],
    settings: Settings,
) -> list[Object]:
    """The Jobs that are to be started now."""
    return [
        manifest
        for errand, advance in errands
        if advance.start
        for manifest in build(
            observed.deployment,
            errand.candidate,
            advance.start,
            errand_template(observed.deployment.spec.pod_template, observed.given.trainer),
            settings,
        )
    ]


def _is_unloading(observed: Observed) -> bool:
    """Whether a replica still holds what is wanted no more; nobody tells when it is gone."""
    return any(each.report is not None and each.report.leaving for each in observed.replicas)


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
