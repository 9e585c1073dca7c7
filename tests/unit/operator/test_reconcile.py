"""What a pass does about its writes: those that are refused, and those that are not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import LocationError
from tunesmith.kube.cluster import ApiError, Cluster
from tunesmith.kube.key import Key
from tunesmith.kube.plan import Plan
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.reconcile import Room, Source, Surroundings, carry_out, one_pass
from tunesmith.kube.store import Store

from tests.unit.operator import given, plans


def unheard(raw: dict[str, Any], *, looked: Key | None = None) -> None:
    """Nobody keeps what is written."""


class Contested(Cluster):
    """Every name is taken by somebody else's object, and every status was changed just now.

    A fake, as no real API server can be made to answer so at the right moment.
    """

    def __init__(self) -> None:
        pass

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        return None

    async def list(self, *_: Any) -> list[dict[str, Any]]:
        return []

    async def apply_status(self, source: Any, status: Any) -> dict[str, Any]:
        raise ApiError(409, "the object has been modified")


class Gone(Contested):
    """The object was deleted, and no watch has told of it. A fake, for the same reason."""

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest

    async def get(self, *_: Any) -> None:
        return None

    async def apply_status(self, source: Any, status: Any) -> dict[str, Any]:
        raise ApiError(404, "not found")


class Failing(Contested):
    """Every child is answered with this status; what is said of it is kept. A fake, as above."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.said: list[dict[str, Any]] = []

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        raise ApiError(self.status, "no leader")

    async def apply_status(self, source: Any, status: Any) -> dict[str, Any]:
        self.said.append(status)
        return {}


@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, "ApiServerFailed"), (403, "Refused"), (409, None), (404, None), (0, None)],
)
async def test_why_a_child_cannot_be_made_is_a_condition(status: int, reason: str | None) -> None:
    made = plans.planned(plans.seen(given.finetunejob()))
    raw = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob"}
    source = Source(raw | {"metadata": given.metadata("triage")})
    cluster, pods = Failing(status), PodHttp()
    around = Surroundings(cluster, Store(), pods, given.SETTINGS, unheard)
    with pytest.raises(ApiError):
        await carry_out(around, source, made, given.NOW)
    await pods.close()
    stalled = [
        each for said in cluster.said for each in said["conditions"] if each["type"] == "Stalled"
    ]
    assert [each["reason"] for each in stalled] == ([reason] if reason else [])
    assert all("no leader" in each["message"] for each in stalled)


async def test_an_object_that_went_unseen_is_forgotten_and_not_tried_again() -> None:
    made = plans.planned(plans.seen(given.finetunejob()))
    raw: dict[str, Any] = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": given.metadata("triage", resourceVersion="7"),
    }
    store, pods = Store(), PodHttp()
    store.put(raw)
    around = Surroundings(Gone(), store, pods, given.SETTINGS, unheard)
    outcome = await carry_out(around, Source(raw), made, given.NOW)
    await pods.close()
    assert outcome.requeue_after is None
    assert store.get("FineTuneJob", "team", "triage") is None


async def test_a_conflict_while_it_is_said_that_a_name_is_taken_is_no_error() -> None:
    made = plans.planned(plans.seen(given.finetunejob()))
    raw = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob"}
    source = Source(raw | {"metadata": given.metadata("triage")})
    pods = PodHttp()
    around = Surroundings(Contested(), Store(), pods, given.SETTINGS, unheard)
    outcome = await carry_out(around, source, made, given.NOW + timedelta(minutes=10))
    await pods.close()
    assert outcome.requeue_after == given.SETTINGS.progress_interval.total_seconds()


class Agreeing(Cluster):
    """Everything that is written is as written. A fake, as only what is told of it matters here."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    async def get(self, *_: Any) -> dict[str, Any]:
        return named("FineTuneJob", "triage", resourceVersion="8")

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest

    async def apply_status(self, source: Any, status: Any) -> dict[str, Any]:
        self.said.append(status)
        return {**source, "status": status}

    async def delete_as_seen(self, source: Any) -> None:
        raise ApiError(409, "the object has been modified", "Conflict")


def named(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    group = "tunesmith.dev/v1alpha1"
    return {"apiVersion": group, "kind": kind, "metadata": given.metadata(name, **metadata)}


@pytest.mark.parametrize("seconds", [10, None])
async def test_whoever_is_looked_at_later_is_not_looked_at_for_what_it_wrote_itself(
    seconds: int | None,
) -> None:
    """Else a training that tells something new each time is asked without a pause."""
    made = plans.planned(plans.seen(given.finetunejob()))
    again = timedelta(seconds=seconds) if seconds else None
    told: list[tuple[str, Key | None]] = []

    def learn(raw: dict[str, Any], *, looked: Key | None = None) -> None:
        told.append((raw["kind"], looked))

    pods = PodHttp()
    around = Surroundings(Agreeing(), Store(), pods, given.SETTINGS, learn)
    source = Source(named("FineTuneJob", "triage"))
    for each in (replace(made, create=()), made):
        await carry_out(around, source, replace(each, requeue_after=again), given.NOW)
    await pods.close()
    itself = Key("FineTuneJob", "team", "triage") if seconds else None
    # What was made is looked at, too.
    assert told == [("FineTuneJob", itself), ("Job", None), ("FineTuneJob", None)]


async def test_an_object_whose_time_was_just_prolonged_is_not_deleted() -> None:
    made = plans.planned(plans.seen(given.finetunejob()))
    told: list[str] = []

    def learn(raw: dict[str, Any], *, looked: Key | None = None) -> None:
        told.append(raw["metadata"]["resourceVersion"])

    pods = PodHttp()
    around = Surroundings(Agreeing(), Store(), pods, given.SETTINGS, learn)
    source = Source(named("FineTuneJob", "triage", resourceVersion="7"))
    outcome = await carry_out(around, source, replace(made, expired=True), given.NOW)
    await pods.close()
    assert told == ["8"]
    assert outcome.requeue_after is not None


class Leaving(Cluster):
    """An object that goes while its children are read. A fake, for the same reason."""

    def __init__(self) -> None:
        self.reads = 0
        self.made: list[str] = []

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.made.append(manifest["kind"])
        return manifest

    async def get(self, *_: Any) -> dict[str, Any] | None:
        self.reads += 1
        return named("AdapterDeployment", "serving") if self.reads == 1 else None


async def test_nothing_is_made_for_an_object_that_went_while_its_children_were_read() -> None:
    async def observe(*_: Any) -> FineTuneJob:
        return given.finetunejob()

    def plan(*_: Any) -> Plan:
        return plans.planned(plans.seen(given.finetunejob()))

    pods, cluster = PodHttp(), Leaving()
    around = Surroundings(cluster, Store(), pods, given.SETTINGS, unheard)
    room = Room(lambda _: given.finetunejob(), observe, plan)
    await one_pass(room, around, Key("AdapterDeployment", "team", "serving"))
    await pods.close()
    assert (cluster.reads, cluster.made) == (2, [])


async def test_what_cannot_be_planned_keeps_what_its_status_tells() -> None:
    """Whatever an adapter's state was is known from there alone."""
    cluster, pods, store = Agreeing(), PodHttp(), Store()
    raw = named("FineTuneJob", "triage", resourceVersion="7")
    store.put(raw | {"status": {"attempt": 3}})

    async def observe(*_: Any) -> FineTuneJob:
        return given.finetunejob()

    def plan(*_: Any) -> Plan:
        raise LocationError("ftp://x", "has an unknown scheme")

    room = Room(lambda _: given.finetunejob(), observe, plan, lambda _: False)
    around = Surroundings(cluster, store, pods, given.SETTINGS, unheard)
    outcome = await one_pass(room, around, Key("FineTuneJob", "team", "triage"))
    await pods.close()
    (said,) = cluster.said
    assert said["attempt"] == 3
    assert {each["reason"] for each in said["conditions"]} == {"Waiting", "Unreadable"}
    assert outcome.requeue_after is None
