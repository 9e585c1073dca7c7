"""The one place that asks pods over HTTP: the trainer's progress, a vLLM server's model list."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
from pydantic import ValidationError

from tunesmith.api.trainer_contract import PROGRESS_PATH, PROGRESS_PORT, ProgressReport

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=3)


class PodHttp:
    """Asks pods by address. What does not answer is None: nobody waits for a silent pod."""

    def __init__(self) -> None:
        # Pods are asked directly: a proxy of the environment knows no pod addresses.
        self._session = aiohttp.ClientSession(timeout=TIMEOUT, trust_env=False)

    async def close(self) -> None:
        await self._session.close()

    async def progress(self, address: str) -> ProgressReport | None:
        """How far a trainer is."""
        answer = await self._get(f"http://{host(address)}:{PROGRESS_PORT}{PROGRESS_PATH}")
        try:
            return ProgressReport.model_validate(answer) if answer else None
        except ValidationError as error:
            log.warning("unreadable progress of %s: %s", address, error)
            return None

    async def served_models(self, address: str, port: int) -> dict[str, str]:
        """What a vLLM server offers: model name → path of its files."""
        answer = await self._get(f"http://{host(address)}:{port}/v1/models")
        models = answer.get("data", []) if isinstance(answer, dict) else []
        return {str(each["id"]): str(each.get("root")) for each in models}

    async def _get(self, url: str) -> Any:
        try:
            async with self._session.get(url) as response:
                if response.status != 200:
                    return None
                return await response.json()
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            log.debug("%s did not answer: %s", url, error)
            return None


def host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
