"""The one place that talks to the vLLM server of this pod."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import aiohttp

from tunesmith.api.serving_contract import VLLM_PORT

log = logging.getLogger(__name__)

QUICK = aiohttp.ClientTimeout(total=5)
#: Reading an adapter from slow storage, behind requests that are being answered.
LOADING = aiohttp.ClientTimeout(total=300)
ANSWERING = aiohttp.ClientTimeout(total=120)
#: Tokens whose log-probabilities come back with the first token; vLLM's own limit is 20.
TOP_TOKENS = 20


class VllmRefusedError(Exception):
    """vLLM will not do it, and says why."""


class Vllm:
    """vLLM's HTTP interface on loopback."""

    def __init__(self, session: aiohttp.ClientSession, port: int = VLLM_PORT) -> None:
        self._session = session
        self._root = f"http://127.0.0.1:{port}"

    async def models(self) -> dict[str, str] | None:
        """What is loaded: model name → path of its files. None while vLLM does not answer."""
        try:
            async with self._session.get(f"{self._root}/v1/models", timeout=QUICK) as response:
                if response.status != 200:
                    return None
                body = await response.json()
                return {str(each["id"]): str(each.get("root") or "") for each in body["data"]}
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return None

    async def load(self, model: str, path: str) -> None:
        """Load an adapter under a name. Raises VllmRefusedError."""
        await self._command("/v1/load_lora_adapter", {"lora_name": model, "lora_path": path})

    async def unload(self, model: str) -> None:
        """Take a name away; requests under way finish. Raises VllmRefusedError."""
        await self._command("/v1/unload_lora_adapter", {"lora_name": model})

    async def first_token(self, model: str, prompt: str) -> dict[str, float]:
        """Log-probabilities of the likeliest first tokens of the answer.

        Raises VllmRefusedError, also for an answer that holds no finite number: NaN in a model
        gives empty text under status 200.
        """
        question = {
            "model": model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": TOP_TOKENS,
        }
        answer = await self._post("/v1/completions", question, ANSWERING)
        try:
            (top,) = answer["choices"][0]["logprobs"]["top_logprobs"]
            found = {token: float(value) for token, value in top.items()}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise VllmRefusedError(f"no log-probabilities in the answer of {model}") from error
        if not found or not all(math.isfinite(value) for value in found.values()):
            raise VllmRefusedError(f"the answer of {model} holds no finite log-probabilities")
        return found

    async def _command(self, path: str, body: dict[str, str]) -> None:
        await self._post(path, body, LOADING)

    async def _post(self, path: str, body: dict[str, Any], timeout: aiohttp.ClientTimeout) -> Any:
        try:
            async with self._session.post(
                self._root + path, json=body, timeout=timeout
            ) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise VllmRefusedError(f"vLLM did not answer: {error!r}") from error
        if response.status != 200:
            raise VllmRefusedError(said(text))
        try:
            return json.loads(text)
        except ValueError:
            return None


def said(text: str) -> str:
    """The sentence in an error of vLLM, whose shape has changed between its versions."""
    try:
        body = json.loads(text)
        found = body.get("error", body)
        return str(found["message"])[:1000]
    except (ValueError, AttributeError, KeyError, TypeError):
        return text[:1000]
