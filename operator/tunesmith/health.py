"""Liveness and readiness of the operator itself, and its metrics."""

from __future__ import annotations

import time

from aiohttp import web

from tunesmith.kube.lease import Lease
from tunesmith.kube.workqueue import WorkQueue
from tunesmith.metrics.exposition import CONTENT_TYPE, Exposition


class HealthServer:
    """``/healthz`` fails when the queue stands still; ``/readyz`` says whether this one leads;
    ``/metrics`` is Prometheus'."""

    #: A pass may take long when the API server is slow; longer than this, something hangs.
    LONGEST_SILENCE_SECONDS = 300.0

    def __init__(self, port: int, queue: WorkQueue, lease: Lease, exposition: Exposition) -> None:
        self._port = port
        self._queue = queue
        self._lease = lease
        self._exposition = exposition
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        silence = time.monotonic() - self._queue.oldest_pass_started()
        if silence > self.LONGEST_SILENCE_SECONDS:
            return web.Response(status=503, text=f"a pass has been running for {silence:.0f}s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="leading\n" if self._lease.held else "standing by\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        body = await self._exposition.text()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
