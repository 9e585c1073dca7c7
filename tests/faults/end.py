"""How a story ended, without what differs from run to run: times, uids, names of pods."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from tests.faults.api_server import ApiServer, Object

SERVING = "tunesmith.dev/adapterdeployment"
MANAGED = "app.kubernetes.io/managed-by=tunesmith"


@dataclass(frozen=True)
class Conclusion:
    """What one FineTuneJob or EvalRun says in the end."""

    name: str
    state: str | None
    #: Type, status and reason.
    conditions: frozenset[tuple[str, str, str]]
    verdict: str | None
    digest: str | None
    counted_failures: int
    attempt: int


@dataclass(frozen=True)
class End:
    """A namespace when nothing moves any more."""

    finetunejobs: tuple[Conclusion, ...]
    evalruns: tuple[Conclusion, ...]
    #: By name.
    batch_jobs: frozenset[str]
    #: Digests of the adapters that serving pods are told to serve.
    served: frozenset[str]

    def differences(self, other: End) -> list[str]:
        return [
            f"{each.name}: {getattr(self, each.name)} and not {getattr(other, each.name)}"
            for each in fields(self)
            if getattr(self, each.name) != getattr(other, each.name)
        ]


async def end_of(api: ApiServer, namespace: str) -> End:
    runs = await api.list("evalruns", namespace)
    batch_jobs = await api.list("jobs", namespace, MANAGED)
    files = await api.list("configmaps", namespace, SERVING)
    return End(
        tuple(_conclusion(each) for each in await api.list("finetunejobs", namespace)),
        tuple(_conclusion(each) for each in runs),
        frozenset(str(each["metadata"]["name"]) for each in batch_jobs),
        frozenset(digest for each in files for digest in served_digests(each)),
    )


def _conclusion(raw: Object) -> Conclusion:
    status: dict[str, Any] = raw.get("status", {})
    judged = status.get("evaluation", {})
    artifact = status.get("artifact", {})
    return Conclusion(
        name=raw["metadata"]["name"],
        state=status.get("state"),
        conditions=frozenset(
            (each["type"], each["status"], each["reason"]) for each in status.get("conditions", [])
        ),
        verdict=status.get("verdict") or judged.get("verdict"),
        digest=status.get("adapterDigest") or artifact.get("digest"),
        counted_failures=status.get("countedFailures", 0),
        attempt=status.get("attempt", 0),
    )


def served_digests(files: Object) -> set[str]:
    """Of every adapter that a serving pod's desired state names."""
    found = set()
    for text in files.get("data", {}).values():
        try:
            told = json.loads(text)
        except ValueError:
            continue
        adapters = told.get("adapters", []) if isinstance(told, dict) else []
        found |= {each["digest"] for each in adapters if each.get("digest")}
    return found
