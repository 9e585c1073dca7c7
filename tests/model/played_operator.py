"""The operator as it is - its store, observe, plan, carry out - with watches that lag and break."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any
from unittest import mock

from tunesmith.api.objects import Kind
from tunesmith.api.serving_contract import ReplicaReport
from tunesmith.api.trainer_contract import ProgressReport
from tunesmith.kube import key, reconcile
from tunesmith.kube.labels import MANAGED_BY
from tunesmith.kube.plan import Plan
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.policies import Deciding, Defaults
from tunesmith.kube.reader import CHILDREN, KEPT, Reader, compare_with_lists
from tunesmith.kube.reconcile import Room, Surroundings, one_pass
from tunesmith.kube.store import Store
from tunesmith.main import ROOMS
from tunesmith.settings import Settings

from tests.model.api_server import NAMESPACE, OURS, ApiServer, Key, Object, View, Write
from tests.model.connection import NONE, Connection, CrashError, Faults
from tests.model.invariants import check_write
from tests.model.truth import Truth
from tests.unit.operator.given import SETTINGS

WATCHED = (Deciding.POLICY, *KEPT)


class Pods(PodHttp):
    """Asks the pods of the model, and remembers what they answered."""

    def __init__(self, sidecars: Mapping[str, ReplicaReport]) -> None:
        self._sidecars = sidecars
        self.heard: dict[str, ReplicaReport] = {}

    async def progress(self, address: str) -> ProgressReport | None:
        return None

    async def replica_report(self, address: str) -> ReplicaReport | None:
        if report := self._sidecars.get(address):
            self.heard[address] = report
        return report


@dataclass
class Operator:
    """Works on one object at a time, as the queue would have it."""

    server: ApiServer
    truth: Truth
    sidecars: Mapping[str, ReplicaReport]
    store: Store = field(default_factory=Store)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    #: The revision up to which the watch of a kind has told.
    told: dict[str, int] = field(default_factory=dict)
    #: What the last pass decided; None when it came to no decision.
    plan: Plan | None = None

    def objects(self) -> list[Key]:
        """Everything of ours that there is."""
        return sorted(each for each in self.server.states[-1] if each[0] in OURS)

    def reconcile(self, subject: Key, faults: Faults = NONE) -> list[str]:
        """One pass over one object. What it wrote, in words."""
        for kind in WATCHED:
            self.hear(kind, faults.lags.get(kind, 0))
        seen = _Seen(self.server, self.store)
        pods = Pods(self.sidecars)

        def watch(before: Object | None, after: Object) -> None:
            write = Write(seen.view(), seen.subject, before, after, pods.heard)
            check_write(write, self.truth)

        connection = Connection(self.server, subject, faults, watch)
        around = Surroundings(connection, self.store, pods, SETTINGS, self._learn)
        room = self._watched(ROOMS[Kind(subject[0])], seen)
        self.plan = None
        now = self.server.clock.now + faults.skew
        try:
            with mock.patch.object(reconcile, "datetime", _at(now)):
                whom = key.Key(subject[0], NAMESPACE, subject[1])
                self.loop.run_until_complete(one_pass(room, around, whom))
        except CrashError:
            self.start()
        return connection.writes

    def _watched(self, room: Room[Any, Any], seen: _Seen) -> Room[Any, Any]:
        """The room as it is, but that it is noted what it reads and decides."""

        def parse(raw: Object) -> Any:
            seen.subject = raw
            return room.parse(raw)

        async def observe(reader: Reader, pods: PodHttp, parsed: Any, given: Defaults) -> Any:
            seen.reads(reader)
            return await room.observe(reader, pods, parsed, given)

        def plan(observed: Any, settings: Settings, now: datetime) -> Plan:
            self.plan = room.plan(observed, settings, now)
            return self.plan

        return replace(room, parse=parse, observe=observe, plan=plan)

    def _learn(self, raw: Object, *, looked: key.Key | None = None) -> None:
        self.store.put(raw)

    def start(self) -> None:
        """Begin with an empty store, and a look at everything."""
        self.store = Store()
        self.look_at_all()

    def look_at_all(self) -> None:
        """Compare what is kept with what is there."""
        connection = Connection(self.server, ("", ""), NONE, lambda *_: None)

        async def compare() -> None:
            async for _ in compare_with_lists(connection, self.store, WATCHED, ()):
                """Everything is looked at."""

        self.loop.run_until_complete(compare())
        self.told = dict.fromkeys(WATCHED, self.server.revision)

    def hear(self, kind: str, lag: int = 0, *, of_what_went: bool = True) -> None:
        """The watch of a kind tells what happened, up to so many revisions ago."""
        until = self.server.revision - lag
        for revision in range(self.told.get(kind, 0) + 1, until + 1):
            raw, is_there = self.server.changed(revision)
            if raw["kind"] != kind or not _is_watched(raw):
                continue
            if is_there:
                self.store.put(raw)
            elif of_what_went:
                self.store.remove(raw)
        self.told[kind] = max(until, self.told.get(kind, 0))


@dataclass
class _Seen:
    """What a pass read last before it decided."""

    server: ApiServer
    store: Store
    subject: Object = field(default_factory=dict)
    revision: int = -1
    _kept: dict[str, list[Object]] | None = None

    def reads(self, reader: Reader) -> None:
        self.revision = self.server.revision
        self._kept = {} if isinstance(reader, Connection) else None

    def view(self) -> View:
        """Looked up at the first write: until then a pass learns nothing new."""
        if self._kept is None:
            self._kept = {kind: self.store.select(kind, NAMESPACE) for kind in KEPT}
        return View(self.server, self.revision, self._kept)


def _is_watched(raw: Object) -> bool:
    return raw["kind"] not in CHILDREN or MANAGED_BY in raw["metadata"].get("labels", {})


def _at(moment: datetime) -> type[datetime]:
    """A clock that stands still."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Then:
            return cls.fromisoformat(moment.isoformat())

    return Then
