"""The one place that asks pods over HTTP: the trainer's progress, a replica's report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import aiohttp
from pydantic import ValidationError

from tunesmith.api.serving_contract import REPORT_PATH, SIDECAR_PORT, ReplicaReport
from tunesmith.api.trainer_contract import PROGRESS_PATH, PROGRESS_PORT, ProgressReport
from tunesmith.kube.parsing import first_complaint, json_of_a_pod

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=3)
MOST_CONNECTIONS = 1000
LARGEST_ANSWER_BYTES = 1 << 20


class PodHttp:
    """Asks pods by address. What does not answer is None.

    ``aside`` is entered while a pod is waited for: others go on meanwhile.
    """

    def __init__(self, aside: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._aside = aside
        # Pods are asked directly: a proxy of the environment knows no pod addresses.
        self._session = aiohttp.ClientSession(
            # Silent pods leave room for those that answer.
            connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS),
            timeout=TIMEOUT,
            trust_env=False,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        await self._session.close()

    async def progress(self, address: str) -> ProgressReport | None:
        """How far a trainer is."""
        answer = await self._get(f"http://{host(address)}:{PROGRESS_PORT}{PROGRESS_PATH}")
        try:
            return ProgressReport.model_validate(answer) if answer else None
        except ValidationError as error:
            log.warning("unreadable progress of %s: %s", address, first_complaint(error))
            return None

    async def replica_report(self, address: str) -> ReplicaReport | None:
        """What the sidecar of a serving pod sees."""
        answer = await self._get(f"http://{host(address)}:{SIDECAR_PORT}{REPORT_PATH}")
        try:
            return ReplicaReport.model_validate(answer) if answer else None
        except ValidationError as error:
            log.warning("unreadable report of %s: %s", address, first_complaint(error))
            return None

    async def _get(self, url: str) -> Any:
        """The JSON at the url. A pod's image may be its user's own, so nothing it says is trusted:
        it cannot send us elsewhere, nor fill our memory."""
        try:
            with self._aside():
                async with self._session.get(url, allow_redirects=False) as response:
                    if response.status != 200:
                        return None
                    answer = await _read(response)
            return json_of_a_pod(answer)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.debug("%s did not answer: %s", url, error)
            return None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises ValueError when it is larger than any honest one."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > LARGEST_ANSWER_BYTES:
            raise ValueError("the answer is too large")
    return bytes(body)


def host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
