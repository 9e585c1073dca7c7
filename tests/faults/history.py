"""What was ever to be seen of the objects that matter, whatever became of them since."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field

import aiohttp

from tests.faults.api_server import ApiServer, Object, path

#: What is followed, and which of it.
FOLLOWED = {
    "finetunejobs": "",
    "evalruns": "",
    "jobs": "app.kubernetes.io/managed-by=tunesmith",
    "configmaps": "tunesmith.dev/adapterdeployment",
}


@dataclass
class History:
    """Every version of every object, by namespace and plural, in the order of its writes."""

    connections: aiohttp.ClientSession
    _seen: dict[str, dict[str, list[Object]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _following: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        self._following = [asyncio.ensure_future(self._follow(each)) for each in FOLLOWED]

    async def close(self) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    def of(self, namespace: str, plural: str) -> list[Object]:
        for task in self._following:
            if task.done():
                # Nothing seen would be nothing broken.
                task.result()
        return self._seen[namespace][plural]

    def forget(self, namespace: str) -> None:
        self._seen.pop(namespace, None)

    async def _follow(self, plural: str) -> None:
        """Begin again whenever the connection ends: the API server may be down or restarted."""
        version = ""
        while True:
            try:
                version = version or await self._list(plural)
                version = await self._watch(plural, version)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)

    async def _list(self, plural: str) -> str:
        query = {"labelSelector": FOLLOWED[plural]}
        api = ApiServer(self.connections)
        found = await api.request("GET", path(plural), query=query)
        for each in found["items"]:
            self._note(plural, each)
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, plural: str, version: str) -> str:
        """Until the connection ends; where to go on, or nothing where a list is due."""
        query = {
            "watch": "true",
            "labelSelector": FOLLOWED[plural],
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
        }
        async with self.connections.get(path(plural), params=query) as answer:
            if answer.status != 200:
                return ""
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._note(plural, event["object"])
        return version

    def _note(self, plural: str, seen: Object) -> None:
        self._seen[seen["metadata"]["namespace"]][plural].append(seen)
