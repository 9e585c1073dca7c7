"""One reconcile pass: what a planner decided is carried out, in an order that survives a crash."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from tunesmith.api.objects import Condition
from tunesmith.kube.cluster import ApiError, Cluster, Object
from tunesmith.kube.events import announcements, event_object
from tunesmith.kube.plan import Plan, Status
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.workqueue import Key, Pass
from tunesmith.settings import Settings

log = logging.getLogger(__name__)


class Parsed(Protocol):
    """An object of ours as its model reads it."""

    @property
    def status(self) -> Status: ...


Thing = TypeVar("Thing", bound=Parsed)
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Room(Generic[Thing, Seen]):
    """What one kind brings: how it is read, observed and planned."""

    parse: Callable[[Object], Thing]
    observe: Callable[[Cluster, PodHttp, Thing], Awaitable[Seen]]
    plan: Callable[[Seen, Settings, datetime], Plan]


@dataclass(frozen=True)
class Source:
    """An object of ours as it was read: raw, and the conditions it had."""

    raw: Object
    conditions: list[Condition] = field(default_factory=list)


async def one_pass(
    room: Room[Thing, Seen], cluster: Cluster, pods: PodHttp, settings: Settings, key: Key
) -> Pass:
    """Read, decide, act."""
    raw = await cluster.get(key.kind, key.namespace, key.name)
    if raw is None:
        return Pass(forget=True)
    if "deletionTimestamp" in raw["metadata"]:
        return Pass()
    parsed = room.parse(raw)
    observed = await room.observe(cluster, pods, parsed)
    now = datetime.now(UTC)
    plan = room.plan(observed, settings, now)
    return await carry_out(cluster, Source(raw, parsed.status.conditions), plan, now)


async def carry_out(cluster: Cluster, source: Source, plan: Plan, now: datetime) -> Pass:
    """Children first, then the status, and only what is true by then is announced."""
    try:
        await _make_children(cluster, source.raw["metadata"]["namespace"], plan)
    except ApiError as error:
        if error.namespace_terminating:
            # The children went before their owner, which follows: nothing is to be made again.
            return Pass()
        raise
    return await _write_status(cluster, source, plan, now)


async def _make_children(cluster: Cluster, namespace: str, plan: Plan) -> None:
    for manifest in plan.create:
        if await cluster.create(manifest):
            log.info("created %s %s/%s", manifest["kind"], namespace, manifest["metadata"]["name"])
    for manifest in plan.apply:
        await cluster.apply(manifest)
        log.info("applied %s %s/%s", manifest["kind"], namespace, manifest["metadata"]["name"])
    for kind, name in plan.delete:
        await cluster.delete(kind, namespace, name)
        log.info("deleted %s %s/%s", kind, namespace, name)


async def _write_status(cluster: Cluster, source: Source, plan: Plan, now: datetime) -> Pass:
    raw = source.raw
    status = without_empty(plan.status.to_json())
    if status != without_empty(raw.get("status", {})):
        try:
            await cluster.apply_status(raw, status)
        except ApiError as error:
            if error.conflict or error.not_found:
                # Somebody changed or deleted the object meanwhile: look again, it is no error.
                return Pass(requeue_after=0.2)
            raise
        await _announce(cluster, source, plan, now)
    wait = plan.requeue_after
    return Pass(requeue_after=wait.total_seconds() if wait else None)


def without_empty(value: Any) -> Any:
    """The same JSON without empty lists and objects, which the API server may or may not keep."""
    if isinstance(value, dict):
        members = {key: without_empty(each) for key, each in value.items()}
        return {key: each for key, each in members.items() if each not in ({}, [])}
    if isinstance(value, list):
        return [without_empty(each) for each in value]
    return value


async def _announce(cluster: Cluster, source: Source, plan: Plan, now: datetime) -> None:
    for told in announcements(source.conditions, plan.status.conditions):
        try:
            await cluster.create(event_object(source.raw, told, now))
        except ApiError as error:
            log.warning("event %s not written: %s", told.reason, error)
