"""The judge: a model behind an OpenAI-compatible endpoint, asked with patience."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any

import httpx  # type: ignore[import-not-found,unused-ignore]
from tunesmith.api.evaluation_suite import Judge
from tunesmith.api.trainer_contract import JUDGE_KEY_VARIABLE, Reason

from tunesmith_trainer.evaluate.mt_bench.prompts import PROMPTS_DIGEST, SAMPLE_PROMPT, JudgePrompt
from tunesmith_trainer.evaluate.mt_bench.reply import Choice
from tunesmith_trainer.failure import TrainerError

log = logging.getLogger(__name__)

#: Requests in flight at a time.
CONCURRENCY = 8
#: Seconds; a judge on a processor takes minutes.
TIMEOUT = httpx.Timeout(600, connect=10)
#: What not every server knows. One that refuses a request is asked again without the first of
#: these, then without both.
OPTIONAL = ("response_format", "seed")
#: The request itself is not to the server's liking; another of the same kind will be.
REFUSED = frozenset({400, 413, 422})
#: A chat completion has some kilobytes.
LARGEST_ANSWER_BYTES = 8 * 1024**2
KEPT_HEADERS = ("Content-Type", "Retry-After")
#: Of a server's error message, in characters.
LONGEST_QUOTE = 300


@dataclass(frozen=True)
class Patience:
    """How often and how long one request is tried."""

    tries: int = 5
    #: Seconds before the second try; doubled after every further one, give or take a half.
    first_wait: float = 1.0
    #: Seconds for all tries of a request; who is told to wait longer gives up at once.
    total: float = 900.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def wait(self, attempt: int, asked_for: float) -> float:
        """Seconds between this attempt (from 1) and the next; as long as the server asks for."""
        # Its own generator: the global one belongs to whoever has seeded it.
        jitter = random.SystemRandom().uniform(0.5, 1.5)
        return max(asked_for, self.first_wait * jitter * 2.0 ** (attempt - 1))


@dataclass(frozen=True)
class Completion:
    """What the judge wrote; None if it was cut short or is no text."""

    text: str | None


@dataclass(frozen=True)
class Refusal:
    """What the server said against the request."""

    message: str


class PassingError(Exception):
    """Something that may be better at the next try."""

    def __init__(self, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class JudgeClient:
    """Asks the judge and reads its choices."""

    def __init__(self, judge: Judge, patience: Patience = Patience()) -> None:
        """Raises TrainerError if the url or the key cannot be used."""
        self._judge = judge
        self._patience = patience
        self._key = os.environ.get(JUDGE_KEY_VARIABLE, "").strip()
        self._left_out = 0
        # A key that no header can carry would be quoted in full by the error about it.
        if not (self._key.isascii() and self._key.isprintable()):
            raise TrainerError(
                Reason.JUDGE_UNREACHABLE,
                f"{JUDGE_KEY_VARIABLE} holds a line break or a letter that no key has: write the "
                "key alone into the Secret",
            )
        try:
            root = httpx.URL(judge.url)
        except httpx.InvalidURL as error:
            raise TrainerError(
                Reason.JUDGE_UNREACHABLE,
                f"mtBench.judge.url is no address ({error}): write it as https://HOST/v1",
            ) from error
        self._endpoint = root.copy_with(path=root.path.rstrip("/") + "/chat/completions")
        # Without user and password.
        self._host = root.netloc.decode()
        # It logs every request with its whole address.
        logging.getLogger("httpx").setLevel(logging.WARNING)

    @property
    def name(self) -> str:
        """Who judges, and a digest of what it is told."""
        return f"{self._judge.model} at {self._host[:200]} (prompts {PROMPTS_DIGEST[:12]})"

    def require_answer(self) -> None:
        """Ask something simple, to know before the models are asked whether the judge is there.

        Raises TrainerError if it is not.
        """
        self.choices([SAMPLE_PROMPT])

    def choices(
        self, prompts: Sequence[JudgePrompt], answered: Callable[[int], None] = lambda _: None
    ) -> list[Choice | None]:
        """What the judge chooses, in the order of the prompts; None where it chose nothing.

        It is asked in that order, CONCURRENCY prompts at a time; ``answered`` is told of each.
        Raises TrainerError if it cannot be reached, or refuses every prompt.
        """
        replies = asyncio.run(self._replies(prompts, answered))
        refusals = [reply.message for reply in replies if isinstance(reply, Refusal)]
        if refusals:
            log.warning("the judge refused %d of %d: %s", len(refusals), len(prompts), refusals[0])
        if refusals and len(refusals) == len(prompts):
            raise self._unreachable(
                f"refuses every request ({refusals[0]})",
                "use a judge that takes chat completions with temperature 0 and enough context",
            )
        return [
            prompt.form.read(reply.text) if isinstance(reply, Completion) and reply.text else None
            for prompt, reply in zip(prompts, replies, strict=True)
        ]

    async def _replies(
        self, prompts: Sequence[JudgePrompt], answered: Callable[[int], None]
    ) -> list[Completion | Refusal]:
        slots = asyncio.Semaphore(CONCURRENCY)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT) as client:

            async def reply(prompt: JudgePrompt) -> Completion | Refusal:
                async with slots:
                    said = await self._ask(client, prompt)
                answered(1)
                return said

            # The first error ends it all; those still asked are cancelled when the loop ends.
            return list(await asyncio.gather(*map(reply, prompts)))

    async def _ask(self, client: httpx.AsyncClient, prompt: JudgePrompt) -> Completion | Refusal:
        """Ask with everything that the server is not known to refuse."""
        request = {
            "model": self._judge.model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
            "temperature": 0,
            "max_tokens": self._judge.max_tokens,
        }
        extras = {"response_format": prompt.form.response_format(self._judge.max_tokens), "seed": 0}
        for left_out in range(self._left_out, len(OPTIONAL) + 1):
            sent = request | {key: extras[key] for key in OPTIONAL[left_out:]}
            said = await self._ask_patiently(client, sent)
            if isinstance(said, Completion):
                # Only now: a prompt that is too long is refused whatever is left out.
                self._left_out = max(self._left_out, left_out)
                break
        return said

    async def _ask_patiently(
        self, client: httpx.AsyncClient, sent: dict[str, Any]
    ) -> Completion | Refusal:
        deadline = monotonic() + self._patience.total
        for attempt in range(1, self._patience.tries + 1):
            try:
                return self._read(await self._posted(client, sent))
            except (httpx.RequestError, TimeoutError) as error:
                fault = PassingError(f"{type(error).__name__}: {error}")
            except PassingError as error:
                fault = error
            wait = self._patience.wait(attempt, fault.retry_after)
            if attempt == self._patience.tries or monotonic() + wait > deadline:
                break
            log.info("the judge at %s: %s; again in %.1f s", self._host, fault, wait)
            await self._patience.sleep(wait)
        raise self._unreachable(
            f"does not answer after {attempt} tries ({fault})",
            "see that the endpoint is up and that the pod may reach it",
        )

    async def _posted(self, client: httpx.AsyncClient, sent: dict[str, Any]) -> httpx.Response:
        """The whole answer, unpacked. Raises PassingError for one that goes on and on."""
        content = bytearray()
        async with (
            asyncio.timeout(self._patience.total),
            client.stream("POST", self._endpoint, json=sent) as response,
        ):
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > LARGEST_ANSWER_BYTES:
                    raise PassingError(
                        f"an answer of more than {LARGEST_ANSWER_BYTES / 1e6:.0f} MB"
                    )
        kept = {key: response.headers[key] for key in KEPT_HEADERS if key in response.headers}
        return httpx.Response(response.status_code, headers=kept, content=bytes(content))

    def _read(self, response: httpx.Response) -> Completion | Refusal:
        """Raises PassingError for what may pass, TrainerError for what will not."""
        match response.status_code:
            case 200:
                return completion_in(response)
            case 401 | 403:
                # Not quoted: some servers repeat the key.
                raise self._unreachable(f"refuses the key ({response.status_code})", self._remedy())
            case status if status in REFUSED:
                return Refusal(self._quote(response))
            case status if status in {408, 429} or status >= 500:
                raise PassingError(f"{status} {self._quote(response)}", retry_after(response))
            case status:
                raise self._unreachable(
                    f"has no model {self._judge.model}, or no API at that address "
                    f"({status} {self._quote(response)})",
                    "correct mtBench.judge.model, or mtBench.judge.url, which mostly ends in /v1",
                )

    def _remedy(self) -> str:
        if self._judge.secret_ref is None:
            return f"name a Secret with the key {JUDGE_KEY_VARIABLE} in mtBench.judge.secretRef"
        return f"correct {JUDGE_KEY_VARIABLE} in the Secret {self._judge.secret_ref.name}"

    def _quote(self, response: httpx.Response) -> str:
        """What the server says is wrong, never with the key in it."""
        said = " ".join(response.text.split())
        if self._key:
            said = said.replace(self._key, "***")
        return said[:LONGEST_QUOTE] or response.reason_phrase

    def _unreachable(self, problem: str, remedy: str) -> TrainerError:
        return TrainerError(
            Reason.JUDGE_UNREACHABLE, f"the judge at {self._host} {problem}: {remedy}"
        )


def completion_in(response: httpx.Response) -> Completion:
    """The text of a chat completion. Raises PassingError if the answer is none."""
    try:
        choice = response.json()["choices"][0]
        text, end = choice["message"].get("content"), choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PassingError("the answer is no chat completion") from error
    return Completion(text if isinstance(text, str) and end != "length" else None)


def retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait, given as a number or a date (RFC 9110); 0 if none."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
