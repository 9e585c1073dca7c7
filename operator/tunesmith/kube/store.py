"""What the watches told of every object that plans are made from.

A pass that reads from here costs the API server nothing. What is kept may lag behind: writes are
guarded (names that follow from the attempt, the resource version of a status), and where a plan
would rest on something that is missing, the API server itself is asked (``Room.doubts``).

Objects are kept without what no plan reads, as compressed JSON, since there may be tens of
thousands. A newer version replaces an older one and never the other way round.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from tunesmith.api.objects import ConditionStatus, Kind
from tunesmith.kube.conditions import find
from tunesmith.kube.key import Key, concerned, owners
from tunesmith.kube.labels import PLAN
from tunesmith.kube.parsing import readable_conditions

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class _Place(NamedTuple):
    kind: str
    namespace: str
    name: str


def _place(raw: Object) -> _Place:
    """What is of the cluster lies in the namespace ""."""
    metadata = raw["metadata"]
    return _Place(raw["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    body: bytes
    #: Nobody has written a status yet.
    is_new: bool
    is_under_way: bool


class Store:
    """The latest known version of each object, found by name or by owner."""

    def __init__(self) -> None:
        self._kept: dict[_Place, _Kept] = {}
        self._children: defaultdict[tuple[str, Key], set[str]] = defaultdict(set)
        self._names: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        #: Objects that went since the last listing began, and at which version.
        self._gone: dict[_Place, int] = {}
        #: How many FineTuneJobs and EvalRuns have neither succeeded nor failed, and are not
        #: suspended, in each namespace that has any.
        self.under_way: Counter[str] = Counter()

    def put(self, raw: Object) -> bool:
        """Keep an object; whether anything changed that a plan may read."""
        metadata = raw["metadata"]
        place = _place(raw)
        version, before = int(metadata["resourceVersion"]), self._kept.get(place)
        if version <= max(before.version if before else 0, self._gone.get(place, 0)):
            return False
        self._names[place.kind, place.namespace].add(place.name)
        for owner in owners(place.namespace, metadata.get("labels", {})):
            self._children[place.kind, owner].add(place.name)
        body = _packed(raw)
        kept = _Kept(version, body, "status" not in raw, _is_under_way(raw))
        change = kept.is_under_way - (before is not None and before.is_under_way)
        self._count_under_way(place.namespace, change)
        self._kept[place] = kept
        return before is None or before.body != body

    def remove(self, raw: Object) -> bool:
        """Forget an object that was deleted; whether it was known."""
        metadata = raw["metadata"]
        place = _place(raw)
        version, kept = int(metadata["resourceVersion"]), self._kept.get(place)
        if kept and kept.version > version:
            # One of the same name was made since.
            return False
        self._gone[place] = version
        if kept:
            self._forget(place)
        return kept is not None

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as it was last seen, or None."""
        kept = self._kept.get(_Place(kind, namespace, name))
        return _unpacked(kept) if kept else None

    def is_new(self, key: Key) -> bool:
        """Whether nobody has looked at an object of ours yet."""
        kept = self._kept.get(_Place(key.kind, key.namespace, key.name))
        return kept is not None and kept.is_new

    def select(
        self, kind: str, namespace: str, labels: dict[str, str] | None = None
    ) -> list[Object]:
        """Objects of a namespace, chosen by labels."""
        wanted = (labels or {}).items()
        owner = next(owners(namespace, labels or {}), None)
        names = self._children.get((kind, owner)) if owner else self._names.get((kind, namespace))
        found = [self.get(kind, namespace, name) for name in sorted(names or ())]
        # Labels may have changed since a name was noted.
        return [
            each for each in found if each and wanted <= each["metadata"].get("labels", {}).items()
        ]

    def keys(self, namespace: str, kind: Kind) -> list[Key]:
        """The objects of ours of a kind in a namespace."""
        names = self._names.get((kind, namespace), set())
        return [Key(str(kind), namespace, name) for name in sorted(names)]

    def all_keys(self, kind: Kind) -> list[Key]:
        """The objects of ours of a kind in all namespaces."""
        return [key for key, _ in self.versions(kind)]

    def versions(self, kind: Kind) -> Iterator[tuple[Key, int]]:
        """The objects of ours of a kind, and the latest known version of each."""
        for (each, namespace), names in self._names.items():
            if each == kind:
                for name in names:
                    version = self._kept[_Place(each, namespace, name)].version
                    yield Key(each, namespace, name), version

    def begin_listing(self) -> None:
        """From here on it is noted what goes, as a list that is under way may still have it."""
        self._gone.clear()

    def remove_unlisted(
        self, kind: str, namespace: str | None, listed: set[tuple[str, str]], version: int
    ) -> list[Key]:
        """Forget what a complete list of this version has no more, by namespace and name.

        The keys are those whose objects or children went: a watch that broke never told of them.
        """
        missed = [
            place
            for place, kept in self._kept.items()
            if place.kind == kind
            and namespace in (None, place.namespace)
            and kept.version <= version
            and (place.namespace, place.name) not in listed
        ]
        return [key for place in missed for key in self._forget(place)]

    def _forget(self, place: _Place) -> list[Key]:
        kept = self._kept.pop(place)
        self._count_under_way(place.namespace, -kept.is_under_way)
        raw = _unpacked(kept)
        self._names[place.kind, place.namespace].discard(place.name)
        for owner in owners(place.namespace, raw["metadata"].get("labels", {})):
            siblings = self._children[place.kind, owner]
            siblings.discard(place.name)
            if not siblings:
                del self._children[place.kind, owner]
        return list(concerned(raw))

    def _count_under_way(self, namespace: str, change: int) -> None:
        self.under_way[namespace] += change
        if not self.under_way[namespace]:
            del self.under_way[namespace]


def _is_under_way(raw: Object) -> bool:
    if raw["kind"] not in (Kind.FINE_TUNE_JOB, Kind.EVAL_RUN):
        return False
    spec = raw.get("spec")
    if isinstance(spec, dict) and spec.get("suspend") is True:
        # Nobody looks at it again until that changes.
        return False
    succeeded = find(readable_conditions(raw), "Succeeded")
    return succeeded is None or succeeded.status is ConditionStatus.UNKNOWN


# --- what is kept --------------------------------------------------------------------------------


def _packed(raw: Object) -> bytes:
    """Without its version, so that equal bytes mean that nothing changed."""
    lean = _LEAN.get(raw["kind"], dict)(raw)
    lean["metadata"] = _without(raw["metadata"], "managedFields", "resourceVersion")
    if annotations := lean["metadata"].get("annotations"):
        lean["metadata"]["annotations"] = _without(annotations, PLAN, LAST_APPLIED)
    return zlib.compress(orjson.dumps(lean, option=orjson.OPT_SORT_KEYS), 1)


def _unpacked(kept: _Kept) -> Object:
    raw: Object = orjson.loads(zlib.decompress(kept.body))
    raw["metadata"]["resourceVersion"] = str(kept.version)
    return raw


def _lean_job(raw: Object) -> Object:
    """Of the pod template what GPUs it asks for; of the status when it began and how it ended."""
    spec, status = raw.get("spec", {}), raw.get("status", {})
    template = spec.get("template", {}).get("spec", {})
    containers = [_only(each, "resources") for each in template.get("containers", [])]
    kept = _only(spec, "suspend", "completionMode", "completions")
    kept["template"] = {"spec": {"containers": containers}}
    conditions = [each for each in status.get("conditions", []) if each["type"] in _JOB_CONDITIONS]
    return {**raw, "spec": kept, "status": _only(status, "startTime") | {"conditions": conditions}}


def _lean_pod(raw: Object) -> Object:
    """Of the containers only their names and images."""
    spec = raw.get("spec", {})
    kept = _only(spec, "nodeName")
    for kind in ("containers", "initContainers"):
        kept[kind] = [_only(each, "name", "image") for each in spec.get(kind, [])]
    return {**raw, "spec": kept}


def _lean_namespace(raw: Object) -> Object:
    """Nothing but its metadata, which has the labels by which policies choose it."""
    return _only(raw, "apiVersion", "kind")


def _only(fields: Object, *names: str) -> Object:
    return {name: fields[name] for name in names if name in fields}


def _without(fields: Object, *names: str) -> Object:
    return {name: each for name, each in fields.items() if name not in names}


_JOB_CONDITIONS = {"Complete", "Failed", "Suspended"}
_LEAN: dict[str, Callable[[Object], Object]] = {
    "Job": _lean_job,
    "Pod": _lean_pod,
    "Namespace": _lean_namespace,
}
