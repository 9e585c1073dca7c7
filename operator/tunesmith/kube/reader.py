"""Reads what the watches told, and asks the API server for everything else.

Watches can miss what goes (kopf tells nothing of what was deleted while one was broken), so that
what is kept is compared with a complete list at the start and then now and again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from tunesmith.api.objects import Kind
from tunesmith.kube.cluster import Cluster, Object
from tunesmith.kube.key import Key, concerned
from tunesmith.kube.labels import MANAGED_BY, MANAGER
from tunesmith.kube.policies import Deciding, decided_anew
from tunesmith.kube.store import Store

#: Objects of ours, and the children that plans are made from.
OWN = tuple(map(str, Kind))
CHILDREN = ("Job", "Pod")
KEPT = (*OWN, *CHILDREN)


class Reader(Protocol):
    """Where a pass reads: the API server itself, or what its watches told."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None: ...

    async def list(
        self, kind: str, namespace: str, labels: dict[str, str] | None = None
    ) -> list[Object]: ...

    async def serves(self, api_version: str) -> bool: ...


class WatchedReader:
    """Reads from the store what is kept there."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        if kind in KEPT:
            return self._store.get(kind, namespace, name)
        return await self._cluster.get(kind, namespace, name)

    async def list(
        self, kind: str, namespace: str, labels: dict[str, str] | None = None
    ) -> list[Object]:
        if kind in KEPT:
            return self._store.select(kind, namespace, labels)
        return await self._cluster.list(kind, namespace, labels)

    async def serves(self, api_version: str) -> bool:
        return await self._cluster.serves(api_version)


def _scope(kind: str, namespaces: Iterable[str]) -> tuple[str | None, ...]:
    """The namespaces in which a kind is listed; None for all, and for what is of the cluster."""
    return (None,) if kind in list(Deciding) else tuple(namespaces) or (None,)


async def compare_with_lists(
    cluster: Cluster, store: Store, kinds: Iterable[str], namespaces: Iterable[str]
) -> AsyncIterator[Key]:
    """Bring the store up to date; whom each change concerns that no watch had told of.

    One by one as they are found: if a list breaks off, nothing tells again of what is kept by then.
    """
    store.begin_listing()
    for kind in kinds:
        labels = {MANAGED_BY: MANAGER} if kind in CHILDREN else {}
        for namespace in _scope(kind, namespaces):
            listed: set[tuple[str, str]] = set()
            version = 0
            async for page in cluster.pages(kind, namespace, labels):
                version = page.version
                for raw in page.items:
                    metadata = raw["metadata"]
                    listed.add((metadata.get("namespace", ""), metadata["name"]))
                    if store.put(raw):
                        for key in (*concerned(raw), *decided_anew(store, raw)):
                            yield key
            for key in store.remove_unlisted(kind, namespace, listed, version):
                yield key
