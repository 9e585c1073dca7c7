"""A steady load on a served endpoint, and a judge of every answer."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from tunesmith.sidecar.probe import difference

#: Answers of one and the same model differ by this much between back ends and batches: bfloat16.
TOLERANCE = 0.35

#: Between an answer and the same client's next question.
PAUSE_SECONDS = 0.8

Likelihoods = dict[str, float]


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    asked_at: float
    seconds: float
    asked: str
    status: int
    #: The name that the answer gives itself.
    model: str = ""
    first_token: Likelihoods = field(default_factory=dict)
    error: str = ""


def question(model: str, prompt: str, tokens: int = 4) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "logprobs": 5,
    }


async def ask(
    session: aiohttp.ClientSession, address: str, model: str, prompt: str, tokens: int = 4
) -> Answer:
    """One request, sent once."""
    began = time.time()
    clock = time.monotonic()
    try:
        async with session.post(
            f"{address}/v1/completions", json=question(model, prompt, tokens)
        ) as response:
            text = await response.text()
            seconds = time.monotonic() - clock
            if response.status != 200:
                return Answer(began, seconds, model, response.status, error=text[:300])
            body = await response.json(content_type=None)
            top = body["choices"][0]["logprobs"]["top_logprobs"][0]
            return Answer(began, seconds, model, 200, body["model"], top)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Answer(began, time.monotonic() - clock, model, 0, error=repr(error))


class Load:
    """Asks each name in turn, some at a time, in a thread of its own, until it is stopped."""

    def __init__(self, address: str, prompt: str, names: list[str], at_once: int = 2) -> None:
        self.answers: list[Answer] = []
        self.names = names
        self._address, self._prompt, self._at_once = address, prompt, at_once
        #: While it is set nobody asks: for steps that are timed.
        self.resting = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(180)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=120)
        # Half of the clients keep their connections open, the others make a new one each time.
        async with (
            aiohttp.ClientSession(timeout=timeout) as keeping,
            aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
            ) as fresh,
        ):
            clients = [keeping if number % 2 else fresh for number in range(self._at_once)]
            await asyncio.gather(
                *(self._client(number, each) for number, each in enumerate(clients))
            )

    async def _client(self, number: int, session: aiohttp.ClientSession) -> None:
        for turn in itertools.count(number):
            if self._stop.is_set():
                return
            if self.resting.is_set():
                await asyncio.sleep(0.1)
                continue
            names = list(self.names)
            answer = await ask(session, self._address, names[turn % len(names)], self._prompt)
            self.answers.append(answer)
            # Steady, not as much as the machine can: it has pods to start meanwhile.
            await asyncio.sleep(PAUSE_SECONDS)


def nearest(first_token: Likelihoods, references: Mapping[str, Likelihoods]) -> tuple[str, float]:
    """Whose answer it is, by its first token's log-probabilities, and how far off it is."""
    distances = {name: difference(first_token, reference) for name, reference in references.items()}
    best = min(distances, key=lambda name: distances[name])
    return best, distances[best]


def wrong(
    answers: list[Answer],
    references: Mapping[str, Likelihoods],
    promoted: Mapping[str, set[str]],
) -> list[str]:
    """Sentences about answers that are not those of the model that was asked.

    ``promoted`` says which versions a name may have stood for while the load ran.
    """
    found = []
    for each in answers:
        if each.status != 200:
            continue
        if each.model not in promoted.get(each.asked, {each.asked}):
            found.append(f"{each.asked} was answered by {each.model}")
            continue
        whose, distance = nearest(each.first_token, references)
        if whose != each.model or distance > TOLERANCE:
            found.append(
                f"the answer of {each.model} is {distance:.2f} from that of {whose}, its nearest"
            )
    return found
