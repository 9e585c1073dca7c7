"""A written-down API server: names, uids, revisions, and all that ever was.

A fake, because the model plays thousands of histories, with faults that no real API server makes on
demand: a crash between any two writes, a view of one kind that is older than that of another. What
the real one does is tested in tests/cluster.

Objects are kept as JSON text: nobody can change one by accident, and every status goes through the
form in which a real API server would keep it. Each write makes a new revision of the whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tunesmith.api import API_VERSION
from tunesmith.api.objects import Kind
from tunesmith.api.serving_contract import ReplicaReport
from tunesmith.kube.conditions import timestamp
from tunesmith.kube.policies import Deciding

from tests.unit.operator import given

Object = dict[str, Any]
Objects = list[Object]
#: Kind and name: there is one namespace.
Key = tuple[str, str]

NAMESPACE = "team"
OURS = {str(kind) for kind in Kind}


@dataclass
class Clock:
    """The time of the model."""

    now: datetime = given.NOW

    def tick(self, seconds: float = 1) -> None:
        self.now += timedelta(seconds=seconds)

    def stamp(self) -> str:
        return timestamp(self.now)


@dataclass(frozen=True)
class View:
    """All objects as they were at some revision, or as somebody else remembers them."""

    server: ApiServer
    #: -1 is the last one, whichever that is by then.
    revision: int = -1
    #: Of these kinds what is remembered.
    kept: Mapping[str, list[Object]] = field(default_factory=dict)

    def get(self, kind: str, name: str) -> Object | None:
        if kind in self.kept:
            found = (each for each in self.kept[kind] if each["metadata"]["name"] == name)
            return next(found, None)
        text = self.server.states[self.revision].get((kind, name))
        return json.loads(text) if text else None

    def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        wanted = (labels or {}).items()
        found = self.kept[kind] if kind in self.kept else self._all(kind)
        return [each for each in found if wanted <= each["metadata"].get("labels", {}).items()]

    def _all(self, kind: str) -> Objects:
        state = self.server.states[self.revision]
        return [json.loads(text) for (other, _), text in sorted(state.items()) if other == kind]


@dataclass(frozen=True)
class Write:
    """One write of the operator, and what its pass had seen when it decided."""

    seen: View
    #: The object that the pass is about, as it was seen.
    subject: Object
    before: Object | None
    after: Object
    #: What the pods answered to it, by address.
    reports: Mapping[str, ReplicaReport]


@dataclass
class ApiServer:
    """Keeps objects. Whoever writes goes through ``create``, ``change`` and ``remove``."""

    clock: Clock = field(default_factory=Clock)
    states: list[dict[Key, str]] = field(default_factory=lambda: [{}])
    #: By revision, what it changed.
    _changed: list[Key] = field(default_factory=lambda: [("", "")])
    _uids: int = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def now(self) -> View:
        return View(self)

    def create(self, manifest: Object) -> Object | None:
        """None when the name is taken: also by an object that is on its way out."""
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in self.states[-1]:
            return None
        self._uids += 1
        made = json.loads(json.dumps(manifest))
        if key[0] != Deciding.POLICY:
            made["metadata"]["namespace"] = NAMESPACE
        made["metadata"] |= {
            "uid": f"uid-{self._uids}",
            "generation": 1,
            "creationTimestamp": self.clock.stamp(),
        }
        return self._put(key, made)

    @contextmanager
    def change(self, kind: str, name: str) -> Iterator[Object]:
        """The object, to be changed in place; another spec is another generation."""
        found = self.now.get(kind, name)
        assert found is not None, f"there is no {kind} {name}"
        before = json.dumps(found)
        yield found
        if json.dumps(found) == before:
            return
        if found.get("spec") != json.loads(before).get("spec"):
            found["metadata"]["generation"] += 1
        self._put((kind, name), found)

    def remove(self, kind: str, name: str) -> None:
        if (kind, name) in self.states[-1]:
            self._changed.append((kind, name))
            self.states.append({k: v for k, v in self.states[-1].items() if k != (kind, name)})

    def collect_garbage(self) -> None:
        """Remove what belongs to nobody any more, and what belonged to that."""
        while orphans := [each for each in self.everything() if self._is_orphan(each)]:
            for each in orphans:
                self.remove(each["kind"], each["metadata"]["name"])

    def changed(self, revision: int) -> tuple[Object, bool]:
        """What a watch tells of a revision: the object, and whether it is there."""
        at = self._changed[revision]
        if text := self.states[revision].get(at):
            return json.loads(text), True
        gone = json.loads(self.states[revision - 1][at])
        gone["metadata"]["resourceVersion"] = str(revision)
        return gone, False

    def everything(self) -> list[Object]:
        return [json.loads(each) for each in self.states[-1].values()]

    def _is_orphan(self, child: Object) -> bool:
        owners = child["metadata"].get("ownerReferences", [])
        return bool(owners) and not any(self._exists(each) for each in owners)

    def _exists(self, reference: Object) -> bool:
        found = self.now.get(reference["kind"], reference["name"])
        return found is not None and bool(found["metadata"]["uid"] == reference["uid"])

    def _put(self, key: Key, made: Object) -> Object:
        made["metadata"]["resourceVersion"] = str(len(self.states))
        self._changed.append(key)
        self.states.append({**self.states[-1], key: json.dumps(made)})
        return made


def custom(kind: Kind, name: str, spec: Object, **metadata: Any) -> Object:
    """A manifest of one of our kinds."""
    return {
        "apiVersion": API_VERSION,
        "kind": str(kind),
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": spec,
    }


def owner_uid(child: Object) -> str:
    """Of the controller, or nothing."""
    owners = child["metadata"].get("ownerReferences", [])
    return next((str(each["uid"]) for each in owners if each.get("controller")), "")
