"""A closed loop of requests on an OpenAI-compatible server, and what came of it.

Needs nothing but aiohttp: it also runs beside a server on a machine with a GPU.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

#: Token ids that every tokenizer of ours has.
LARGEST_TOKEN = 40_000


@dataclass(frozen=True)
class Shape:
    """How much is asked: the same in every row that is compared."""

    requests: int
    at_once: int
    prompt_tokens: int = 512
    answer_tokens: int = 128


@dataclass
class Outcome:
    """What came of one closed loop."""

    seconds: float = 0.0
    tokens: int = 0
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def median_latency(self) -> float:
        return statistics.median(self.latencies)


def prompt(seed: int, tokens: int) -> list[int]:
    """Random token ids, equal for equal seeds; no two prompts share a beginning."""
    chosen = random.Random(seed)
    return [chosen.randrange(1000, LARGEST_TOKEN) for _ in range(tokens)]


async def closed_loop(address: str, models: Sequence[str], shape: Shape, seed: int = 0) -> Outcome:
    """Ask the models in turn, always ``at_once`` requests under way."""
    outcome = Outcome()
    numbers = iter(range(shape.requests))
    names = itertools.cycle(models)
    timeout = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def client() -> None:
            for number in numbers:
                body = {
                    "model": next(names),
                    "prompt": prompt(seed * 1_000_003 + number, shape.prompt_tokens),
                    "max_tokens": shape.answer_tokens,
                    "ignore_eos": True,
                    "temperature": 0,
                }
                await _one(session, address, body, outcome)

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(shape.at_once)))
        outcome.seconds = time.monotonic() - began
    return outcome


async def _one(
    session: aiohttp.ClientSession, address: str, body: dict[str, Any], outcome: Outcome
) -> None:
    began = time.monotonic()
    try:
        async with session.post(f"{address}/v1/completions", json=body) as response:
            text = await response.text()
            if response.status != 200:
                outcome.failures.append(f"{response.status}: {text[:200]}")
                return
            answer = await response.json(content_type=None)
            outcome.tokens += int(answer["usage"]["completion_tokens"])
            outcome.latencies.append(time.monotonic() - began)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
        outcome.failures.append(repr(error))
