"""Leader election: one replica acts, by a coordination.k8s.io Lease.

kubernetes.aio brings an election, but an error of the connection ends it without stopping what it
started, and it writes local time as UTC. This one does what client-go's does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunesmith.kube.cluster import ApiError, Cluster, Object

log = logging.getLogger(__name__)

MOST_RELEASES = 3


@dataclass(frozen=True)
class LeaseSettings:
    """Times as in client-go: renew well before others may take over."""

    namespace: str
    identity: str
    name: str = "tunesmith-operator"
    duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0


class LeaseLostError(Exception):
    """The lease could not be renewed in time: another replica may act, so this one must stop."""


class Lease:
    """Holds, or waits for, the lease.

    Expiry is judged by how long this process has seen the same record, never by comparing the
    clocks of two machines.
    """

    def __init__(self, cluster: Cluster, settings: LeaseSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        #: Our own record as it was last written, so that renewing it needs no look at it first.
        self._own: Object | None = None
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self.held = False

    async def acquire(self) -> None:
        """Wait until this replica may act."""
        while not await self._try():
            await asyncio.sleep(self._settings.retry_seconds)
        self.held = True
        log.info("%s holds the lease", self._settings.identity)

    async def keep(self) -> None:
        """Renew for ever. Raises LeaseLostError when it did not work in time."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.retry_seconds)
            remaining = self._settings.renew_deadline_seconds - (time.monotonic() - renewed)
            try:
                async with asyncio.timeout(max(remaining, 0.1)):
                    if not await self._try():
                        raise LeaseLostError("another replica took the lease")
                renewed = time.monotonic()
            except (ApiError, OSError, TimeoutError) as error:
                log.warning("lease not renewed: %s", error)
                if time.monotonic() - renewed > self._settings.renew_deadline_seconds:
                    raise LeaseLostError("the lease could not be renewed in time") from error

    async def release(self) -> None:
        """Let the next replica start at once."""
        if not self.held:
            return
        self.held = False
        for _ in range(MOST_RELEASES):
            current = await self._get()
            if not current or current["spec"].get("holderIdentity") != self._settings.identity:
                return
            current["spec"]["holderIdentity"] = ""
            try:
                await self._cluster.replace(current)
                return
            except ApiError as error:
                # A renewal that was under way, and that nobody waits for any more, came first.
                if not error.conflict:
                    raise

    async def _get(self) -> Object | None:
        return await self._cluster.get("Lease", self._settings.namespace, self._settings.name)

    async def _try(self) -> bool:
        if self._own and await self._write(self._own):
            return True
        current = await self._get()
        if current is None:
            self._own = await self._cluster.create(self._record(None))
            return self._own is not None
        return self._may_take(current["spec"]) and await self._write(current)

    async def _write(self, current: Object) -> bool:
        """Renew or take the lease; False when somebody else changed it meanwhile."""
        self._own = None
        try:
            self._own = await self._cluster.replace(self._record(current))
        except ApiError as error:
            if not error.conflict and not error.not_found:
                raise
        return self._own is not None

    def _may_take(self, spec: Object) -> bool:
        holder = spec.get("holderIdentity", "")
        if holder in ("", self._settings.identity):
            return True
        record = (holder, spec.get("renewTime", ""))
        if record != self._seen:
            self._seen, self._seen_at = record, time.monotonic()
        return time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds", 15))

    def _record(self, current: Object | None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = dict(current["spec"]) if current else {}
        if spec.get("holderIdentity") != self._settings.identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        spec |= {
            "holderIdentity": self._settings.identity,
            "renewTime": now,
            "leaseDurationSeconds": int(self._settings.duration_seconds),
        }
        metadata = {"name": self._settings.name, "namespace": self._settings.namespace}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": current["metadata"] if current else metadata,
            "spec": spec,
        }
