"""What the operator takes for the API server in one pass: it may fail, or tell of what is past."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from tunesmith.kube.cluster import ApiError, Cluster, Page

from tests.model.api_server import ApiServer, Key, Object

#: Told of each write: the object before it, if there was one, and after it.
Watch = Callable[[Object | None, Object], None]


class CrashError(Exception):
    """The operator dies before it sends its next write."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong in one pass."""

    #: The write before which the operator dies, from 0.
    crash_before: int | None = None
    #: By how many revisions the watch of a kind is behind.
    lags: Mapping[str, int] = field(default_factory=dict)
    #: Somebody else writes to the object while it is looked at: its status cannot be written.
    touched: bool = False
    #: The operator's clock goes wrong by so much.
    skew: timedelta = timedelta()


NONE = Faults()


class Connection(Cluster):
    """Reads and writes the model's API server."""

    def __init__(self, server: ApiServer, subject: Key, faults: Faults, watch: Watch) -> None:
        self._server, self._subject = server, subject
        self._faults, self._watch = faults, watch
        #: What was written, in words; a write that changes nothing is none.
        self.writes: list[str] = []

    # --- reads -----------------------------------------------------------------------------------

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._server.now.get(kind, name)

    async def list(
        self, kind: str, namespace: str | None, labels: dict[str, str] | None = None
    ) -> list[Object]:
        return self._server.now.list(kind, labels)

    async def pages(
        self, kind: str, namespace: str | None, labels: dict[str, str] | None = None
    ) -> AsyncIterator[Page]:
        yield Page(self._server.now.list(kind, labels), self._server.revision)

    async def serves(self, api_version: str) -> bool:
        return False

    # --- writes ----------------------------------------------------------------------------------

    async def create(self, manifest: Object) -> Object | None:
        if manifest["kind"] == "Event":
            return {}
        self._begin_write()
        made = self._server.create(manifest)
        if made:
            self._told("create", None, made)
        return made

    async def apply(self, manifest: Object) -> Object:
        """Fields that are named become as said, others stay. That fields which are named no more
        go is left out: what is applied here always names the same ones."""
        self._begin_write()
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        before = self._server.now.get(kind, name)
        if before is None:
            self._server.create(manifest)
        else:
            with self._server.change(kind, name) as found:
                merge(found, json.loads(json.dumps(manifest)))
        return self._after("apply", kind, name, before)

    async def apply_status(self, source: Object, status: Object) -> Object:
        if self._faults.touched:
            touch(self._server, self._subject)
        self._begin_write()
        kind, name = source["kind"], source["metadata"]["name"]
        before = self._server.now.get(kind, name)
        if before is None:
            raise ApiError(404, "not found")
        same = ("uid", "resourceVersion")
        if any(before["metadata"][each] != source["metadata"][each] for each in same):
            raise ApiError(409, "the object has been modified")
        with self._server.change(kind, name) as found:
            found["status"] = json.loads(json.dumps(status))
        return self._after("status", kind, name, before)

    async def annotate(
        self, kind: str, namespace: str, name: str, annotations: dict[str, str]
    ) -> None:
        self._patch(kind, name, {"metadata": {"annotations": annotations}})

    async def suspend(
        self, namespace: str, job_name: str, annotations: dict[str, str], *, suspend: bool
    ) -> Object | None:
        patch = {"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}}
        return self._patch("Job", job_name, patch)

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        self._begin_write()
        if self._server.now.get(kind, name):
            self._server.remove(kind, name)
            self.writes.append(f"delete {kind}/{name}")

    async def delete_as_seen(self, source: Object) -> None:
        kind, metadata = source["kind"], source["metadata"]
        before = self._server.now.get(kind, metadata["name"])
        same = ("uid", "resourceVersion")
        if before and any(before["metadata"][each] != metadata[each] for each in same):
            raise ApiError(409, "the object has been modified")
        await self.delete(kind, metadata["namespace"], metadata["name"])

    def _patch(self, kind: str, name: str, patch: Object) -> Object | None:
        self._begin_write()
        before = self._server.now.get(kind, name)
        if before is None:
            return None
        with self._server.change(kind, name) as found:
            merge(found, patch)
        return self._after("patch", kind, name, before)

    def _begin_write(self) -> None:
        limit = self._faults.crash_before
        if limit is not None and len(self.writes) >= limit:
            raise CrashError

    def _after(self, verb: str, kind: str, name: str, before: Object | None) -> Object:
        after = self._server.now.get(kind, name)
        assert after is not None
        if after != before:
            self._told(verb, before, after)
        return after

    def _told(self, verb: str, before: Object | None, after: Object) -> None:
        self.writes.append(f"{verb} {after['kind']}/{after['metadata']['name']}")
        self._watch(before, after)


def merge(found: Object, patch: Object) -> None:
    """As a merge patch has it; no patch of ours takes a field away."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(found.get(name), dict):
            merge(found[name], value)
        else:
            found[name] = value


def touch(server: ApiServer, key: Key) -> None:
    """Some other controller, or a person, writes to the object."""
    if server.now.get(*key):
        with server.change(*key) as found:
            annotations = found["metadata"].setdefault("annotations", {})
            annotations["example.com/touched"] = str(server.revision)
