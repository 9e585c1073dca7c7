"""Objects that today's schema would refuse, stored while an older one, without rules, was there."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.demo.kubectl import Object
from tests.fuzz.admission import AT_ONCE, collection, name_of
from tests.fuzz.api import DEFINITIONS_PATH, SETTLES_SECONDS, Api, gather_bounded
from tests.fuzz.objects import API_VERSION, PLURALS

LOOK_SECONDS = 0.5
LAX = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@asynccontextmanager
async def without_rules(api: Api, namespace: str) -> AsyncIterator[None]:
    """Definitions that take anything; the real ones are put back at the end, whatever happens."""
    strict = {}
    for plural in PLURALS.values():
        path = f"{DEFINITIONS_PATH}/{plural}.tunesmith.dev"
        strict[path] = (await api.get(path))["spec"]
    try:
        for path, spec in strict.items():
            lax = copy.deepcopy(spec)
            lax["versions"][0]["schema"] = {"openAPIV3Schema": LAX}
            await _put(api, path, lax)
        await _until_refused(api, namespace, refused=False)
        yield
    finally:
        for path, spec in strict.items():
            await _put(api, path, spec)
        await _until_refused(api, namespace, refused=True)


async def _put(api: Api, path: str, spec: Object) -> None:
    """As Helm would: what another manager wrote would stand in the way of the next upgrade."""
    current = await api.get(path)
    kept = ("name", "labels", "annotations")
    metadata = {key: each for key, each in current["metadata"].items() if key in kept}
    definition = {"apiVersion": current["apiVersion"], "kind": current["kind"]}
    await api.apply(path, {**definition, "metadata": metadata, "spec": spec}, "helm")


async def _until_refused(api: Api, namespace: str, *, refused: bool) -> None:
    """Until every kind refuses, or takes, an object without any sense."""
    deadline = time.monotonic() + SETTLES_SECONDS
    for kind in PLURALS:
        probe = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": "probe"},
            "spec": {"baseModel": 7},
        }
        path = collection(kind, namespace)
        while ((await api.request("POST", path, probe, dryRun="All"))[0] >= 400) is not refused:
            assert time.monotonic() < deadline, f"the definition of {kind} does not settle"
            await asyncio.sleep(LOOK_SECONDS)


async def store(api: Api, objects: list[Object], namespace: str) -> list[Object]:
    """Create them as they are, status and all; gives those that the API server took."""
    answers = await gather_bounded(
        [api.request("POST", collection(each["kind"], namespace), each) for each in objects],
        AT_ONCE,
    )
    stored = [
        (each, content)
        for each, (status, content) in zip(objects, answers, strict=True)
        if status < 300
    ]
    for each, created in stored:
        if "status" in each:
            path = f"{collection(each['kind'], namespace)}/{each['metadata']['name']}/status"
            # The operator may have been faster: then what it says stands, and that is fine.
            await api.request("PUT", path, {**created, "status": each["status"]})
    return [each for each, _ in stored]


async def untold(api: Api, namespace: str, log: str) -> list[str]:
    """Those about which neither their status nor the operator's log says a word."""
    paths = [collection(kind, namespace) for kind in PLURALS]
    listed = await asyncio.gather(*(api.items(path) for path in paths))
    return [
        name_of(each)
        for found in listed
        for each in found
        if not _has_conditions(each) and f"{name_of(each)}:" not in log
    ]


def _has_conditions(found: Object) -> bool:
    """Whether the operator wrote into its status: what it writes says for which generation."""
    status = found.get("status")
    told = status.get("conditions") if isinstance(status, dict) else None
    return isinstance(told, list) and any(
        isinstance(each, dict) and each.get("observedGeneration") for each in told
    )
