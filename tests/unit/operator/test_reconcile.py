"""What a pass does when a write of it is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tunesmith.kube.cluster import ApiError, Cluster
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.reconcile import Source, Surroundings, carry_out
from tunesmith.kube.store import Store

from tests.unit.operator import given, plans


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
    around = Surroundings(cluster, Store(), pods, given.SETTINGS, lambda _: None)
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
    around = Surroundings(Gone(), store, pods, given.SETTINGS, lambda _: None)
    outcome = await carry_out(around, Source(raw), made, given.NOW)
    await pods.close()
    assert outcome.requeue_after is None
    assert store.get("FineTuneJob", "team", "triage") is None


async def test_a_conflict_while_it_is_said_that_a_name_is_taken_is_no_error() -> None:
    made = plans.planned(plans.seen(given.finetunejob()))
    raw = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob"}
    source = Source(raw | {"metadata": given.metadata("triage")})
    pods = PodHttp()
    around = Surroundings(Contested(), Store(), pods, given.SETTINGS, lambda _: None)
    outcome = await carry_out(around, source, made, given.NOW + timedelta(minutes=10))
    await pods.close()
    assert outcome.requeue_after == given.SETTINGS.progress_interval.total_seconds()
