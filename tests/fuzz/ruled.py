"""Namespaces under policies that were drawn from the schema: what they give must be told, too."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from examples.demo.kubectl import Object
from tests.fuzz.admission import AT_ONCE, Fates, throw
from tests.fuzz.api import GROUP_PATH, Api, gather_bounded
from tests.fuzz.objects import good_examples, policies

POLICIES_PATH = f"{GROUP_PATH}/tuningpolicies"


@dataclass
class Ruled:
    """What became of the policies, and of good objects in their namespaces."""

    policies: Fates = field(default_factory=Fates)
    objects: Fates = field(default_factory=Fates)


async def rule(api: Api, namespaces: list[str], number: int) -> Ruled:
    """One policy for each namespace, and in each every example; leaves neither behind."""
    ruled = Ruled()
    drawn = policies(namespaces, number)
    try:
        creations = [api.request("POST", POLICIES_PATH, each) for each in drawn]
        ruled.policies.judge(await gather_bounded(creations, AT_ONCE))
        await throw(api, _in_every_one(namespaces), namespaces, ruled.objects)
    finally:
        await asyncio.gather(*(api.delete(f"{POLICIES_PATH}/{each}") for each in namespaces))
    return ruled


def _in_every_one(namespaces: list[str]) -> list[Object]:
    """As ``throw`` deals them out: the first example to every namespace, then the second."""
    return [
        {**each, "metadata": {"name": f"ruled-{position}"}}
        for position, each in enumerate(good_examples())
        for _ in namespaces
    ]
