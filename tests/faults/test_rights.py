"""The operator's rights are least: without any one of them something breaks that a person sees.

Each right is taken away in turn, and a story that needs it is told to the end. The same stories end
well with all of them.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from examples.demo.chain import ROOT
from tests.faults.rights import Operated, Right, granted, operated, refused
from tests.faults.stage import Stage
from tests.faults.stories import STORIES, Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_ONCE = 8
#: Nothing more happens when nothing has changed for so long; pods take a second or two.
STANDS_STILL_SECONDS = 10.0
#: An operator that cannot keep its lease ends 10 s later.
ENDS_SECONDS = 30.0
LONGEST_SECONDS = 120.0
RIGHTS = granted()


@dataclass
class Ending:
    """How a story ended without some right, or with all of them."""

    story: Story
    without: Right | None
    #: What was asked for in vain.
    refused: set[Right] = field(default_factory=set)
    #: What a person sees that is not as it should be.
    lacking: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        if self.without is None:
            return not self.lacking and not self.refused
        return bool(self.lacking) and self.refused == {self.without}

    def __str__(self) -> str:
        what = f"without {self.without}" if self.without else f"with all rights, {self.name}"
        told = "; ".join(self.lacking) or "all is well"
        others = self.refused - {self.without} if self.without else self.refused
        more = f" (refused: {', '.join(map(str, sorted(others)))})" if others else ""
        return f"  {what}: {told}{more}, {self.seconds:.0f} s"

    @property
    def name(self) -> str:
        return self.story.scenario.name


def story_of(right: Right) -> Story:
    (found,) = (each for each in STORIES if str(right) in each.shows)
    return found


@pytest.fixture(scope="session")
def development_images() -> None:
    subprocess.run(["make", "-C", str(ROOT), "--silent", "images"], check=True)


async def tell(
    stage: Stage, places: asyncio.Semaphore, story: Story, without: Right | None
) -> Ending:
    ending = Ending(story, without)
    allowed = [each for each in RIGHTS if each != without]
    async with places, operated(stage.api, stage.folder, stage.session, allowed) as under:
        began = time.monotonic()
        await under.team.apply(story.scenario)
        acting = asyncio.ensure_future(story.scenario.act(under.team))
        try:
            ending.lacking = await until_it_stands_still(under, story, acting)
        finally:
            acting.cancel()
        ending.refused = refused(under.proxy)
        ending.seconds = time.monotonic() - began
    print(ending, flush=True)
    return ending


async def until_it_stands_still(
    under: Operated, story: Story, acting: asyncio.Future[None]
) -> list[str]:
    """What is lacking in the end; nothing once all is well."""
    before: list[str] = []
    changed = began = time.monotonic()
    while time.monotonic() - began < LONGEST_SECONDS:
        if under.operator.ended:
            return ["the operator ends"]
        state = await under.team.state()
        lacking = [] if state == story.scenario.ends else [f"the job is {state or 'left alone'}"]
        lacking += [] if acting.done() else ["nobody could do anything"]
        lacking += await story.lacking(under.team)
        if not lacking and (is_deaf(under) or not under.proxy.forbidden):
            return ["the operator is deaf, as its log says"] if is_deaf(under) else []
        if lacking != before:
            before, changed = lacking, time.monotonic()
        patience = STANDS_STILL_SECONDS if lacking else ENDS_SECONDS
        if under.proxy.forbidden and time.monotonic() - changed > patience:
            break
        await asyncio.sleep(0.3)
    return before


def is_deaf(under: Operated) -> bool:
    """Whether a watch was refused. Complete looks, ten minutes apart, and what is asked for anyway
    carry a story to its end all the same, later."""
    return "APIForbiddenError" in under.operator.log.read_text()


async def endings(stage: Stage, told: Iterable[tuple[Story, Right | None]]) -> list[Ending]:
    places = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(tell(stage, places, *each) for each in told))


async def test_every_right_of_the_chart_has_one_story() -> None:
    told = Counter(right for each in STORIES for right in each.shows)
    assert told == Counter(map(str, RIGHTS))


async def test_without_any_one_right_something_breaks(
    stage: Stage, development_images: None
) -> None:
    """All of them, where only a selection of faults is wanted, too: what one shows says nothing
    about another."""
    told = await endings(
        stage,
        [*((story_of(each), each) for each in RIGHTS), *((each, None) for each in STORIES)],
    )
    wrong = [each for each in told if not each.is_right]
    assert not wrong, "\n".join(map(str, wrong))
