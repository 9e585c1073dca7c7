"""Names of objects of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tunesmith.kube.labels import OWNER_LABELS


@dataclass(frozen=True, order=True)
class Key:
    """Names one object of ours."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def owners(namespace: str, labels: Mapping[str, str]) -> Iterator[Key]:
    """Whose child an object with these labels is."""
    for kind, label in OWNER_LABELS.items():
        if label in labels:
            yield Key(str(kind), namespace, labels[label])
