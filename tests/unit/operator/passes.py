"""A work queue that runs one pass."""

from __future__ import annotations

import asyncio

from tunesmith.kube.key import Key
from tunesmith.kube.workqueue import Pass, Reconcile, WorkQueue


async def one_pass(key: Key, reconcile: Reconcile) -> None:
    """Until the first pass about this object is over, well or not, and all is told of it."""
    over = asyncio.Event()

    async def told(each: Key) -> Pass:
        try:
            return await reconcile(each)
        finally:
            over.set()

    queue = WorkQueue(told, workers=1)
    queue.add(key)
    running = asyncio.create_task(queue.run())
    async with asyncio.timeout(10):
        await over.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
