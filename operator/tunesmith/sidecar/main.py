"""The sidecar's table of contents: settings, the loop, what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time

import aiohttp
from aiohttp import web

from tunesmith.api.serving_contract import METRICS_PATH, REPORT_PATH, SIDECAR_PORT, STARTED_PATH
from tunesmith.sidecar.metrics import exposition
from tunesmith.sidecar.proxy import Proxy
from tunesmith.sidecar.replica import Replica
from tunesmith.sidecar.vllm import Vllm

log = logging.getLogger(__name__)

#: Between two looks at the files that say what is wanted.
LOOK_SECONDS = 0.1
#: Between two steps when nothing seems to have changed: while something is under way, and else.
BUSY_SECONDS = 0.25
QUIET_SECONDS = 2.0


def application(replica: Replica) -> web.Application:
    """What the sidecar answers. It takes no orders: the desired state comes as a file."""

    async def report(_: web.Request) -> web.Response:
        return web.json_response(replica.report().to_json())

    async def started(_: web.Request) -> web.Response:
        return web.Response(status=200 if replica.started else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=exposition(replica.report()), content_type="text/plain")

    found = web.Application()
    found.router.add_get(REPORT_PATH, report)
    found.router.add_get(STARTED_PATH, started)
    found.router.add_get(METRICS_PATH, metrics)
    return found


async def keep_in_step(replica: Replica) -> None:
    """Step for ever: at once after something changed, and now and then in any case."""
    while True:
        replica.wake.clear()
        try:
            await replica.step()
        except Exception:
            log.exception("a step failed; the next one follows")
        pause = QUIET_SECONDS if replica.is_settled() else BUSY_SECONDS
        due = time.monotonic() + pause
        while time.monotonic() < due and not replica.is_due():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replica.wake.wait(), LOOK_SECONDS)


async def run() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiohttp.ClientSession(trust_env=False) as session:
        replica = Replica(Vllm(session), Proxy(session))
        runner = web.AppRunner(application(replica), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, None, SIDECAR_PORT).start()
        loop = asyncio.create_task(keep_in_step(replica))
        await stop.wait()
        loop.cancel()
        await runner.cleanup()


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(run())
