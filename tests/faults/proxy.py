"""Stands between one operator and the API server, counts its requests and strikes some of them.

A fake of trouble, not of the API server: whatever is not struck is answered by the real one.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp import web

from tests.faults.fault import Effect, Fault, Moment, RequestFault, Requests, WatchFault
from tests.faults.watches import DisturbedWatches

WRITES = {"POST", "PUT", "PATCH", "DELETE"}
#: Headers that belong to one connection.
OF_A_CONNECTION = {
    "connection", "transfer-encoding", "content-length", "keep-alive", "host", "accept-encoding",
}  # fmt: skip
#: Longer than the operator waits for an answer.
HANG_SECONDS = 35.0
#: A lease that nobody renews is free by then, and another operator has found out.
FREEZE_SECONDS = 24.0


@dataclass
class Proxy:
    """The way of one operator to the API server."""

    upstream: aiohttp.ClientSession
    fault: Fault | None = None
    #: Whom the API server takes the operator for; empty: the administrator.
    user: str = ""
    #: What that one was not allowed, as the API server says it.
    forbidden: list[str] = field(default_factory=list)
    #: What kills the operator, and what stops it and lets it go on.
    kill: Callable[[], None] = lambda: None
    stop: Callable[[], None] = lambda: None
    go_on: Callable[[], None] = lambda: None
    #: Every write, such as "POST jobs", in order.
    writes: list[str] = field(default_factory=list)
    reads: int = 0
    struck: list[str] = field(default_factory=list)
    #: Whether a request during which the operator was stopped has been answered since.
    went_on: bool = False
    last_write: float = field(default_factory=time.monotonic)
    #: When it last asked for what there is.
    last_look: float = 0.0
    address: str = ""
    _disturbed: DisturbedWatches | None = None
    _runner: web.AppRunner | None = None

    @property
    def has_struck(self) -> bool:
        return bool(self.struck) or bool(self._disturbed and self._disturbed.touched)

    async def start(self) -> None:
        if isinstance(self.fault, WatchFault):
            self._disturbed = DisturbedWatches(self.fault)
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if "watch" in request.query:
            return await self._watch(request)
        fault = self._strikes(request, body)
        if fault and fault.moment is Moment.BEFORE:
            await self._befalls(fault)
            if fault.effect is not Effect.FREEZE:
                return self._no_answer(fault, request)
        answer = await self._forward(request, body)
        if fault and fault.moment is Moment.AFTER:
            await self._befalls(fault)
            if fault.effect is not Effect.FREEZE:
                return self._no_answer(fault, request)
        self.went_on = self.went_on or fault is not None
        return answer

    def _strikes(self, request: web.Request, body: bytes) -> RequestFault | None:
        """Count the request; the fault, if it strikes this one."""
        if "/leases" in request.path or request.path.startswith("/version"):
            return None
        if request.method in WRITES:
            self.writes.append(description(request, body))
            self.last_write = time.monotonic()
            kind, number = Requests.WRITES, len(self.writes)
        else:
            self.last_look = time.monotonic()
            self.reads += 1
            kind, number = Requests.READS, self.reads
        fault = self.fault
        if not isinstance(fault, RequestFault) or fault.requests is not kind:
            return None
        if not fault.number <= number < fault.number + fault.times:
            return None
        self.struck.append(description(request, body))
        return fault

    async def _befalls(self, fault: RequestFault) -> None:
        match fault.effect:
            case Effect.KILL:
                self.kill()
            case Effect.FREEZE:
                self.stop()
                await asyncio.sleep(FREEZE_SECONDS)
                self.go_on()
            case Effect.HANG:
                await asyncio.sleep(HANG_SECONDS)
            case _:
                pass

    def _no_answer(self, fault: RequestFault, request: web.Request) -> web.Response:
        if fault.effect is Effect.ANSWER:
            return refusal(fault.status)
        if request.transport:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        try:
            async with self.upstream.request(
                request.method,
                request.raw_path,
                data=body or None,
                headers=self._passed_on(request),
                timeout=aiohttp.ClientTimeout(total=120),
            ) as answer:
                content = await answer.read()
                if answer.status == HTTPStatus.FORBIDDEN:
                    self.forbidden.append(content.decode())
                return web.Response(
                    status=answer.status, headers=passed_on(answer.headers), body=content
                )
        except (aiohttp.ClientError, TimeoutError):
            # What the operator would see: a connection that ends.
            if request.transport:
                request.transport.abort()
            return web.Response()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.last_look = time.monotonic()
        try:
            async with self.upstream.get(
                request.raw_path, headers=self._passed_on(request)
            ) as answer:
                if answer.status == HTTPStatus.FORBIDDEN:
                    self.forbidden.append(await answer.text())
                    return web.Response(status=answer.status)
                response = web.StreamResponse(
                    status=answer.status, headers=passed_on(answer.headers)
                )
                await response.prepare(request)
                events = self._seen_events(request, answer)
                async for event in events:
                    await response.write(event)
                return response
        except (aiohttp.ClientError, ConnectionError):
            if request.transport:
                request.transport.abort()
            return web.Response()

    def _passed_on(self, request: web.Request) -> dict[str, str]:
        headers = passed_on(request.headers)
        return headers | ({"Impersonate-User": self.user} if self.user else {})

    def _seen_events(
        self, request: web.Request, answer: aiohttp.ClientResponse
    ) -> AsyncIterator[bytes]:
        events = lines(answer)
        if self._disturbed is None or answer.status != 200:
            return events
        return self._disturbed.stream(request.path, events)


async def lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for line in answer.content:
        yield line


def passed_on(headers: Any) -> dict[str, str]:
    """Without those of one connection; uncompressed, so that events can be read."""
    return {key: value for key, value in headers.items() if key.lower() not in OF_A_CONNECTION}


def refusal(status: int) -> web.Response:
    """As the API server would word it."""
    reasons = {409: "AlreadyExists", 429: "TooManyRequests", 503: "ServiceUnavailable"}
    told = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "made by the fault proxy",
        "reason": reasons.get(status, "InternalError"),
        "code": status,
    }
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return web.Response(
        status=status, headers=headers, body=json.dumps(told), content_type="application/json"
    )


def description(request: web.Request, body: bytes) -> str:
    """Such as "PATCH finetunejobs/triage/status" or "POST jobs/triage-train-1"."""
    resource = re.sub(r"^/apis?/([^/]+/)?v[^/]+/(namespaces/[^/]+/)?", "", request.path)
    if request.method == "POST":
        with suppress(ValueError, KeyError):
            resource += f"/{json.loads(body)['metadata']['name']}"
    return f"{request.method} {resource}"
