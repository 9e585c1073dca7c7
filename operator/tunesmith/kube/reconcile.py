"""One reconcile pass: what a planner decided is carried out, in an order that survives a crash."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from tunesmith.api.locations import LocationError
from tunesmith.api.objects import Condition, Kind
from tunesmith.api.reasons import ConditionReason
from tunesmith.kube.cluster import ApiError, Cluster, Object
from tunesmith.kube.conditions import fails, holds, updated
from tunesmith.kube.events import announcements, event_object
from tunesmith.kube.key import Key
from tunesmith.kube.labels import ATTEMPT
from tunesmith.kube.pace import paced
from tunesmith.kube.parsing import first_complaint, readable_conditions
from tunesmith.kube.plan import Plan, Status
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.policies import Defaults, defaults_in
from tunesmith.kube.reader import Reader, WatchedReader
from tunesmith.kube.store import Store
from tunesmith.kube.workqueue import Pass, PassFailed
from tunesmith.metrics.results import count_results
from tunesmith.settings import Settings

log = logging.getLogger(__name__)

#: What does not fit the models: the schema was another one when it was made, or is not in force.
UNREADABLE = (ValidationError, LocationError)
NAME_TAKEN_SECONDS = 1.0
#: After a conflict.
AGAIN_SECONDS = 0.1
#: What an object of the same name left behind is collected within seconds.
PATIENCE_WITH_NAMES = timedelta(seconds=30)


class NameTakenError(Exception):
    """A child's name is taken by an object of another owner."""


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
    observe: Callable[[Reader, PodHttp, Thing, Defaults], Awaitable[Seen]]
    plan: Callable[[Seen, Settings, datetime], Plan]
    #: Whether something that should be there was not seen, which the watches may yet tell of.
    #: None: what the watches told is not enough for this kind at all.
    doubts: Callable[[Seen], bool] | None = None


class Learn(Protocol):
    """Keeps an object and has those looked at whom it concerns, but for ``looked``."""

    def __call__(self, raw: Object, *, looked: Key | None = None) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """What passes read from and write to."""

    cluster: Cluster
    store: Store
    pods: PodHttp
    settings: Settings
    #: Told of what the API server answered to a write, as if a watch had told of it.
    learn: Learn


@dataclass(frozen=True)
class Source:
    """An object of ours as it was read: raw, and the conditions it had."""

    raw: Object
    conditions: list[Condition] = field(default_factory=list)


async def one_pass(room: Room[Thing, Seen], around: Surroundings, key: Key) -> Pass:
    """Read, decide, act. Raises PassFailed with what the API server said, if it said no."""
    try:
        observed = await _observed(room, around, key)
        if observed is None:
            return Pass()
        source, seen = observed
        now = datetime.now(UTC)
        try:
            plan = room.plan(seen, _settings(around, key), now)
        except UNREADABLE as error:
            # Of its own kind it can be read: what status tells stays.
            message = _unreadable(source.raw, first_complaint(error))
            await _say_stalled(around.cluster, source, ConditionReason.UNREADABLE, message, now)
            return Pass()
        makes = plan.create or plan.apply
        if room.doubts is None and makes and not await _is_still_there(around.cluster, source.raw):
            return Pass()
        return await carry_out(around, source, plan, now)
    except ApiError as error:
        reason = f"Http{error.status}" if error.status else "NoAnswer"
        raise PassFailed(str(error), reason) from error


def _settings(around: Surroundings, key: Key) -> Settings:
    """Of what works for hours there may be thousands; those who wait for a server wait for it."""
    if key.kind == Kind.ADAPTER_DEPLOYMENT:
        return around.settings
    return paced(around.settings, around.store.under_way, key.namespace)


async def _observed(
    room: Room[Thing, Seen], around: Surroundings, key: Key
) -> tuple[Source, Seen] | None:
    """What a plan is made from; None when nothing is to be done about the object."""
    if room.doubts is None:
        return await _read(room, around.cluster, around, key)
    seen = await _read(room, WatchedReader(around.store, around.cluster), around, key)
    if seen and room.doubts(seen[1]):
        return await _read(room, around.cluster, around, key)
    return seen


async def _is_still_there(cluster: Cluster, raw: Object) -> bool:
    """Deleted while its children were read, it would seem to lack those that went with it."""
    metadata = raw["metadata"]
    found = await cluster.get(raw["kind"], metadata["namespace"], metadata["name"])
    if found is None or "deletionTimestamp" in found["metadata"]:
        return False
    return bool(found["metadata"]["uid"] == metadata["uid"])


async def _read(
    room: Room[Thing, Seen], reader: Reader, around: Surroundings, key: Key
) -> tuple[Source, Seen] | None:
    raw = await reader.get(key.kind, key.namespace, key.name)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None
    try:
        parsed = room.parse(raw)
        given = defaults_in(around.store, key.namespace)
        seen = await room.observe(reader, around.pods, parsed, given)
    except UNREADABLE as error:
        await _say_unreadable(around, raw, first_complaint(error))
        return None
    except ApiError as error:
        if error.status != 400:
            raise
        # A name or a selector in the spec that the API server cannot even look for.
        await _say_unreadable(around, raw, error.message[:1000])
        return None
    return Source(raw, parsed.status.conditions), seen


async def carry_out(around: Surroundings, source: Source, plan: Plan, now: datetime) -> Pass:
    """Children first, then the status, and only what is true by then is announced."""
    cluster = around.cluster
    if plan.expired:
        return await _let_go(around, source)
    try:
        await _make_children(around, source.raw["metadata"]["namespace"], plan)
    except NameTakenError as error:
        if _age(source, now) <= PATIENCE_WITH_NAMES:
            log.info("%s: again when it is gone", error)
            return Pass(requeue_after=NAME_TAKEN_SECONDS)
        message = f"{error}. Delete it or give it another name; this goes on by itself then."
        await _say_stalled(cluster, source, ConditionReason.NAME_TAKEN, message, now)
        return Pass(requeue_after=around.settings.progress_interval.total_seconds())
    except ApiError as error:
        if error.namespace_terminating:
            # The children went before their owner, which follows: nothing is to be made again.
            return Pass()
        if error.status and not error.conflict and not error.not_found:
            with contextlib.suppress(ApiError):
                await _say_stalled(cluster, source, *_why_no_child(error), now)
        raise
    done = await _write_status(around, source, plan, now)
    await _tidy_up(cluster, source, plan)
    return done


async def _tidy_up(cluster: Cluster, source: Source, plan: Plan) -> None:
    namespace = source.raw["metadata"]["namespace"]
    for kind, name in plan.obsolete:
        try:
            await cluster.delete(kind, namespace, name)
            log.info("deleted %s %s/%s", kind, namespace, name)
        except ApiError as error:
            log.warning("%s %s/%s is not deleted: %s", kind, namespace, name, error)


async def _let_go(around: Surroundings, source: Source) -> Pass:
    """Its time to live is over, unless somebody has just given it another."""
    try:
        await around.cluster.delete_as_seen(source.raw)
    except ApiError as error:
        if error.conflict:
            return await _look_again(around, source)
        raise
    metadata = source.raw["metadata"]
    whose = metadata["namespace"], metadata["name"]
    log.info("deleted %s %s/%s: its time to live is over", source.raw["kind"], *whose)
    return Pass()


def _looked(source: Source, plan: Plan) -> Key | None:
    """The object itself, where a look at once, because of what this one wrote, would find nothing
    to do. Whatever a training says makes a write, and each would be followed by the next question
    without a pause."""
    if not looks_later(plan):
        return None
    metadata = source.raw["metadata"]
    return Key(source.raw["kind"], metadata["namespace"], metadata["name"])


def looks_later(plan: Plan) -> bool:
    """Whether the next look is set, and nothing was made or changed that it is to see at once."""
    touches = plan.create or plan.apply or plan.suspend
    return plan.requeue_after is not None and not touches


async def _make_children(around: Surroundings, namespace: str, plan: Plan) -> None:
    cluster = around.cluster
    for manifest in plan.create:
        if created := await cluster.create(manifest):
            around.learn(created)
            log.info("created %s %s/%s", manifest["kind"], namespace, manifest["metadata"]["name"])
        elif not await _is_there(cluster, manifest):
            name = f"{manifest['kind']} {manifest['metadata']['name']}"
            raise NameTakenError(f"{name} exists and belongs to something else")
    for manifest in plan.apply:
        await cluster.apply(manifest)
        log.info("applied %s %s/%s", manifest["kind"], namespace, manifest["metadata"]["name"])
    for kind, name in plan.delete:
        await cluster.delete(kind, namespace, name)
        log.info("deleted %s %s/%s", kind, namespace, name)
    for name, wanted in plan.annotate:
        await cluster.annotate("Pod", namespace, name, wanted)
    for each in plan.suspend:
        told = await cluster.suspend(
            namespace, each.job_name, each.annotations, suspend=each.suspend
        )
        if told:
            around.learn(told)
        log.info("%s Job %s", "suspended" if each.suspend else "resumed", each.job_name)


async def _is_there(cluster: Cluster, manifest: Object) -> bool:
    """Whether what is there under this name is what an earlier pass made for the same owner.

    An object that was deleted and applied anew may meet what its namesake left.
    """
    metadata = manifest["metadata"]
    labels = {key: each for key, each in metadata["labels"].items() if key != ATTEMPT}
    kind = manifest["kind"]
    if kind == "Service":
        found = await cluster.get(kind, metadata["namespace"], metadata["name"])
        same = [found] if found else []
    else:
        same = await cluster.list(kind, metadata["namespace"], labels)
    owner = metadata["ownerReferences"][0]["uid"]
    return any(
        each["metadata"]["name"] == metadata["name"]
        and owner in [other["uid"] for other in each["metadata"].get("ownerReferences", [])]
        for each in same
    )


def _why_no_child(error: ApiError) -> tuple[str, str]:
    if error.refused:
        message = f"The API server refused what this object needs: {error.message[:2000]}"
        return ConditionReason.REFUSED, message
    message = (
        f"The API server failed at what this object needs ({error.status}: "
        f"{error.message[:1000]}). It is tried again by itself."
    )
    return ConditionReason.API_SERVER_FAILED, message


def _age(source: Source, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(str(source.raw["metadata"]["creationTimestamp"]))


async def _say_stalled(
    cluster: Cluster, source: Source, reason: str, message: str, now: datetime
) -> None:
    """A child cannot be made: a quota, a policy or a value is in the way, or its name is taken."""
    findings = [
        holds("Stalled", reason, message),
        fails("Reconciling", ConditionReason.WAITING, "Waits; see the condition Stalled."),
    ]
    generation = int(source.raw["metadata"].get("generation", 1))
    told = updated(source.conditions, findings, generation, now)
    kept = [each for each in source.conditions if each.type not in {one.type for one in told}]
    conditions = [each.to_json() for each in (*kept, *told)]
    before = source.raw.get("status", {})
    said = {"observedGeneration": generation, "state": "Waiting", "conditions": conditions}
    status = before | said
    if status == before:
        return
    try:
        await cluster.apply_status(source.raw, status)
    except ApiError as error:
        # Somebody changed or deleted the object meanwhile: the next look says it, it is no error.
        if not error.conflict and not error.not_found:
            raise


async def _say_unreadable(around: Surroundings, raw: Object, complaint: str) -> Pass:
    """The schema refuses such objects today; one that came past it helps nobody if it is tried
    again: that is said once, and the rest is up to whoever changes it."""
    kind, metadata = raw["kind"], raw["metadata"]
    message = _unreadable(raw, complaint)
    findings = [
        fails("Reconciling", ConditionReason.UNREADABLE, "Waits; see the condition Stalled."),
        holds("Stalled", ConditionReason.UNREADABLE, message),
    ]
    generation = int(metadata.get("generation", 1))
    told = updated(readable_conditions(raw), findings, generation, datetime.now(UTC))
    status = {"state": "Waiting", "conditions": [each.to_json() for each in told]}
    if status != without_empty(raw.get("status")):
        log.warning("%s %s/%s: %s", kind, metadata["namespace"], metadata["name"], message)
        try:
            await around.cluster.replace_status(raw, status)
        except ApiError as refusal:
            # Even that may be refused, as the rest of the object is what it is.
            if not refusal.refused and not refusal.conflict:
                raise
    return Pass()


def _unreadable(raw: Object, complaint: str) -> str:
    return (
        f"Nothing is done about this object, as it cannot be read ({complaint}): delete it and "
        f"apply it anew, mended. `kubectl explain {raw['kind'].lower()}` says what belongs there."
    )


async def _write_status(around: Surroundings, source: Source, plan: Plan, now: datetime) -> Pass:
    cluster, raw = around.cluster, source.raw
    status = without_empty(plan.status.to_json())
    if status != without_empty(raw.get("status", {})):
        try:
            answer = await cluster.apply_status(raw, status)
            around.learn(answer, looked=_looked(source, plan))
            count_results(raw, status)
        except ApiError as error:
            if error.conflict or error.not_found:
                # Somebody changed or deleted the object meanwhile: look again, it is no error.
                return await _look_again(around, source)
            raise
        await _announce(cluster, source, plan, now)
    wait = plan.requeue_after
    return Pass(requeue_after=wait.total_seconds() if wait else None)


async def _look_again(around: Surroundings, source: Source) -> Pass:
    """The watch may be slower than whoever changed or deleted the object, or have missed it."""
    metadata = source.raw["metadata"]
    whose = metadata["namespace"], metadata["name"]
    newer = await around.cluster.get(source.raw["kind"], *whose)
    if newer is None:
        around.store.remove(source.raw)
        return Pass()
    around.learn(newer)
    return Pass(requeue_after=AGAIN_SECONDS)


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
