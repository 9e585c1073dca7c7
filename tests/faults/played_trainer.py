"""What a trainer says about itself, played: no request gets to a simulated pod."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from tunesmith.api.job_status import Progress, TrainingPhase
from tunesmith.api.trainer_contract import PROGRESS_PATH, PROGRESS_PORT, ProgressReport

#: Each has a loopback address of its own, as all have the same port.
_NUMBERS = itertools.count(1)


@asynccontextmanager
async def trainer_that_says(phase: TrainingPhase) -> AsyncIterator[str]:
    """The address at which it says so."""
    report = ProgressReport(training=Progress(phase=phase))

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(report.to_json())

    application = web.Application()
    application.router.add_get(PROGRESS_PATH, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    address = f"127.94.0.{next(_NUMBERS)}"
    await web.TCPSite(runner, address, PROGRESS_PORT).start()
    try:
        yield address
    finally:
        await runner.cleanup()
