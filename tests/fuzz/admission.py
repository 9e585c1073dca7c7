"""A crowd of objects, created as fast as the API server takes them, and what became of each."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

from examples.demo.kubectl import Object, conditions
from tests.fuzz.api import GROUP_PATH, Api, gather_bounded
from tests.fuzz.objects import PLURALS

AT_ONCE = 32
LOOK_SECONDS = 0.5
#: Longest that the operator may take to say something about an object.
LONGEST_SECONDS = 60.0
#: A refusal must say where: a path into the object, or a field that is not known.
PLACE = re.compile(r"\b(spec|metadata)\b|unknown field|must not be empty|label|annotation|name")


@dataclass
class Fates:
    """What became of the objects so far."""

    created: int = 0
    admitted: int = 0
    #: Answers that blame the server instead of the object.
    blunders: list[str] = field(default_factory=list)
    #: Refusals that do not say which field is wrong.
    vague: list[str] = field(default_factory=list)
    #: Admitted objects about which nothing was said, by name.
    silent: list[str] = field(default_factory=list)
    slowest_status: float = 0.0
    seconds: float = 0.0

    def judge(self, answers: list[tuple[int, Object]]) -> None:
        """Count what the API server answered to requests that create something."""
        self.created += len(answers)
        for status, content in answers:
            message = str(content.get("message"))
            if status < 300:
                self.admitted += 1
            elif status >= 500 or status == 429:
                self.blunders.append(message)
            elif not PLACE.search(message):
                self.vague.append(message)

    @property
    def admitted_share(self) -> float:
        return self.admitted / max(1, self.created)

    @property
    def per_second(self) -> float:
        return self.created / max(0.001, self.seconds)


def collection(kind: str, namespace: str) -> str:
    return f"{GROUP_PATH}/namespaces/{namespace}/{PLURALS[kind]}"


async def throw(api: Api, objects: list[Object], namespaces: list[str], fates: Fates) -> None:
    """Create a wave of objects, wait until each that was let in has a status, take them away."""
    began = time.monotonic()
    # Half as kubectl asks, which refuses unknown fields, half as most programs do.
    calls = [
        api.request(
            "POST",
            collection(each["kind"], namespaces[number % len(namespaces)]),
            each,
            fieldValidation=("Strict", "Ignore")[number // len(namespaces) % 2],
        )
        for number, each in enumerate(objects)
    ]
    answers = await gather_bounded(calls, AT_ONCE)
    fates.seconds += time.monotonic() - began
    fates.judge(answers)
    fates.silent += await until_told(api, namespaces)
    fates.slowest_status = max(fates.slowest_status, time.monotonic() - began)
    paths = [collection(kind, each) for kind in PLURALS for each in namespaces]
    await asyncio.gather(*(api.delete(path) for path in paths))


async def until_told(api: Api, namespaces: list[str]) -> list[str]:
    """The objects about which nothing is said after the longest time."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        paths = [collection(kind, each) for kind in PLURALS for each in namespaces]
        listed = await asyncio.gather(*(api.items(path) for path in paths))
        left = [name_of(each) for found in listed for each in found if not is_told(each)]
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(LOOK_SECONDS)


def name_of(found: Object) -> str:
    return f"{found['metadata']['namespace']}/{found['metadata']['name']}"


def is_told(found: Object) -> bool:
    """Whether its status has a word for its state, and if it is stalled a sentence about that."""
    status = found.get("status", {})
    stalled = conditions(found).get("Stalled", {"status": "False"})
    return bool(status.get("state")) and (stalled["status"] != "True" or bool(stalled["message"]))
