"""The API server as a program sees it: requests as fast as they go, answers as they come."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from examples.demo.kubectl import Object

GROUP_PATH = "/apis/tunesmith.dev/v1alpha1"
SETTLES_SECONDS = 60.0
DEFINITIONS_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Api:
    """One connection pool, as the user of the kubeconfig."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def request(
        self, method: str, path: str, body: Object | None = None, **query: str
    ) -> tuple[int, Object]:
        """Status and content of the answer, whatever it is."""
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        async with self._session.request(
            method,
            f"{self._server}{path}",
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": kind},
        ) as response:
            text = await response.text()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, {"message": text}

    async def get(self, path: str, **query: str) -> Object:
        deadline = time.monotonic() + SETTLES_SECONDS
        while (answer := await self.request("GET", path, None, **query))[0] == 429:
            # Right after its definition was changed, a kind cannot be read for a moment.
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.5)
        return self._expected(path, answer)

    async def create(self, path: str, body: Object) -> Object:
        return self._expected(path, await self.request("POST", path, body))

    async def apply(self, path: str, body: Object, manager: str) -> Object:
        query = {"fieldManager": manager, "force": "true"}
        return self._expected(path, await self.request("PATCH", path, body, **query))

    async def delete(self, path: str) -> None:
        """An object, or all of a kind in a namespace; gone already is fine."""
        await self.request("DELETE", path, {"propagationPolicy": "Background"})

    async def items(self, path: str, **query: str) -> list[Object]:
        return list((await self.get(path, **query))["items"])

    @staticmethod
    def _expected(path: str, answer: tuple[int, Object]) -> Object:
        status, content = answer
        if status >= 400:
            raise RuntimeError(f"{path}: {status} {content.get('message')}")
        return content


@asynccontextmanager
async def connected(at_once: int) -> AsyncIterator[Api]:
    """The cluster of the environment's kubeconfig."""
    configuration = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    cluster, user = configuration["clusters"][0]["cluster"], configuration["users"][0]["user"]
    context = ssl.create_default_context(cadata=_decoded(cluster, "certificate-authority").decode())
    with tempfile.NamedTemporaryFile() as pair:
        certificate = _decoded(user, "client-certificate")
        pair.write(certificate + b"\n" + _decoded(user, "client-key"))
        pair.flush()
        context.load_cert_chain(pair.name)
    connector = aiohttp.TCPConnector(limit=at_once, ssl=context)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Api(session, cluster["server"])


def _decoded(entry: dict[str, Any], key: str) -> bytes:
    if text := entry.get(f"{key}-data"):
        return base64.b64decode(text)
    return Path(entry[key]).read_bytes()


async def gather_bounded(calls: list[Any], at_once: int) -> list[Any]:
    """All of them, a few at a time, in their order."""
    gate = asyncio.Semaphore(at_once)

    async def one(call: Any) -> Any:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))
