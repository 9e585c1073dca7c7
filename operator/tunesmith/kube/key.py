"""Names of objects of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tunesmith.kube.labels import OWNER_LABELS


@dataclass(frozen=True, order=True)
class Key:
    """Names one object of ours."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


#: Whom the pass that runs here is about; log lines say so.
CURRENT: ContextVar[Key | None] = ContextVar("current", default=None)


def owners(namespace: str, labels: Mapping[str, str]) -> Iterator[Key]:
    """Whose child an object with these labels is. Anybody may write them, empty ones too."""
    for kind, label in OWNER_LABELS.items():
        if name := labels.get(label):
            yield Key(str(kind), namespace, name)


def concerned(raw: dict[str, Any]) -> Iterator[Key]:
    """Whom a change of this object concerns: its owners, and itself if it is one of ours."""
    metadata = raw["metadata"]
    if "namespace" not in metadata:
        return
    if raw["kind"] in OWNER_LABELS:
        yield Key(raw["kind"], metadata["namespace"], metadata["name"])
    named = list(owners(metadata["namespace"], metadata.get("labels", {})))
    yield from named
    # Whose label a hand has taken away has its owner still, who has to miss it.
    for each in metadata.get("ownerReferences", []):
        key = Key(each["kind"], metadata["namespace"], each["name"])
        if key.kind in OWNER_LABELS and key not in named:
            yield key
