"""The API server as its administrator asks it: directly, past every fault."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from devcluster.layout import own_layout
from devcluster.network import API_SERVER_URL

Object = dict[str, Any]

ROOTS = {
    "finetunejobs": "/apis/tunesmith.dev/v1alpha1",
    "evalruns": "/apis/tunesmith.dev/v1alpha1",
    "adapterdeployments": "/apis/tunesmith.dev/v1alpha1",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "configmaps": "/api/v1",
    "services": "/api/v1",
    "events": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "namespaces": "/api/v1",
    "nodes": "/api/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "clusterroles": "/apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
}
#: Longer than the longest pause of the API server.
PATIENCE_SECONDS = 120.0
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class RefusedError(Exception):
    """The API server understood and said no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


def administrator() -> ssl.SSLContext:
    certificates = own_layout().certificates
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
    return context


def session() -> aiohttp.ClientSession:
    """Connections to the API server; one session serves all."""
    return aiohttp.ClientSession(
        API_SERVER_URL,
        connector=aiohttp.TCPConnector(ssl=administrator(), limit=0),
        # A line of a watch is a whole object.
        read_bufsize=1 << 22,
        skip_auto_headers=["Accept-Encoding"],
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        trust_env=False,
    )


def path(plural: str, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    tail = "".join(f"/{part}" for part in (name, subresource) if part)
    return f"{ROOTS[plural]}{scope}/{plural}{tail}"


@dataclass(frozen=True)
class ApiServer:
    """A few requests, each repeated while the API server is away."""

    connections: aiohttp.ClientSession

    async def get(self, plural: str, namespace: str | None, name: str) -> Object | None:
        try:
            return await self.request("GET", path(plural, namespace, name))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> list[Object]:
        query = {"labelSelector": selector} if selector else {}
        found = await self.request("GET", path(plural, namespace), query=query)
        return list(found["items"])

    async def create(self, plural: str, namespace: str | None, manifest: Object) -> None:
        """Create it; one that is there already was made by the same request, sent twice."""
        try:
            await self.request("POST", path(plural, namespace), manifest)
        except RefusedError as error:
            if error.status != 409:
                raise

    async def apply(self, plural: str, name: str, manifest: Object) -> None:
        query = {"fieldManager": "faults", "force": "true"}
        await self.request("PATCH", path(plural, None, name), manifest, APPLY, query)

    async def patch(
        self, plural: str, namespace: str | None, name: str, patch: Object, subresource: str = ""
    ) -> None:
        target = path(plural, namespace, name, subresource)
        await self.request("PATCH", target, patch, MERGE)

    async def delete(
        self, plural: str, namespace: str | None, name: str, **options: object
    ) -> None:
        """Delete it; gone already is fine."""
        try:
            await self.request("DELETE", path(plural, namespace, name), options)
        except RefusedError as error:
            if error.status not in (404, 409):
                raise

    async def request(
        self,
        method: str,
        target: str,
        body: object = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Object:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self._once(method, target, body, content_type, query or {})
            except (aiohttp.ClientError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
            except RefusedError as error:
                if error.status not in (429, 500, 503, 504) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.5)

    async def _once(
        self, method: str, target: str, body: object, content_type: str, query: dict[str, str]
    ) -> Object:
        async with self.connections.request(
            method,
            target,
            params=query,
            data=json.dumps(body) if body is not None else None,
            headers={"Content-Type": content_type},
            timeout=aiohttp.ClientTimeout(total=30),
        ) as answer:
            text = await answer.text()
        if answer.status >= 400:
            raise RefusedError(answer.status, text)
        return dict(json.loads(text))


async def until(
    what: str, check: Callable[[], Awaitable[object]], seconds: float, every: float = 0.3
) -> None:
    """Ask until the check holds. Raises TimeoutError saying what never did."""
    deadline = time.monotonic() + seconds
    while not await check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s: not {what}")
        await asyncio.sleep(every)
