"""The lease is given back, so that another replica need not wait until it expires."""

from __future__ import annotations

import copy
from typing import Any

from tunesmith.kube.cluster import ApiError, Cluster
from tunesmith.kube.lease import Lease, LeaseSettings


class Late(Cluster):
    """A renewal that nobody waits for any more is carried out just before the lease is given back.

    A fake, as no real API server is late at the right moment.
    """

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.conflicts = 0

    async def get(self, *_: Any) -> dict[str, Any] | None:
        return copy.deepcopy(self.lease)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.lease = manifest
        return manifest

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "the object has been modified", "Conflict")
        self.lease = manifest
        return manifest


async def test_a_lease_is_given_back_although_a_renewal_came_between() -> None:
    cluster = Late()
    lease = Lease(cluster, LeaseSettings("system", "one"))
    await lease.acquire()
    assert cluster.lease
    assert cluster.lease["spec"]["holderIdentity"] == "one"
    cluster.conflicts = 2
    await lease.release()
    assert cluster.lease["spec"]["holderIdentity"] == ""


async def test_a_lease_that_another_has_is_left_alone() -> None:
    cluster = Late()
    lease = Lease(cluster, LeaseSettings("system", "one"))
    await lease.acquire()
    assert cluster.lease
    cluster.lease["spec"]["holderIdentity"] = "another"
    await lease.release()
    assert cluster.lease["spec"]["holderIdentity"] == "another"
