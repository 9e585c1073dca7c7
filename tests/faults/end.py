"""How a story ended, without what differs from run to run: times, uids, names of pods."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from tunesmith.adapterdeployment.selection import VERSION_LENGTH

from tests.faults.api_server import ApiServer, Object

SERVING = "tunesmith.dev/adapterdeployment"
#: What a server is made of.
OF_A_SERVER = ("configmaps", "deployments", "services", "poddisruptionbudgets")
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
class Serving:
    """What one AdapterDeployment says in the end."""

    name: str
    state: str | None
    #: Type, status and reason.
    conditions: frozenset[tuple[str, str, str]]
    #: Name, digest and state of every version.
    adapters: frozenset[tuple[str, str, str]]


@dataclass(frozen=True)
class End:
    """A namespace when nothing moves any more."""

    finetunejobs: tuple[Conclusion, ...]
    evalruns: tuple[Conclusion, ...]
    adapterdeployments: tuple[Serving, ...]
    #: By name.
    batch_jobs: frozenset[str]
    #: What there is of servers, such as "services/serving-vllm".
    servers: frozenset[str]
    #: Versions of the adapters that serving pods are told to serve.
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
    deployments = await api.list("adapterdeployments", namespace)
    # What a server leaves behind whose AdapterDeployment is gone, no_orphans finds.
    looked_for = OF_A_SERVER if deployments else ()
    servers = [
        f"{plural}/{each['metadata']['name']}"
        for plural in looked_for
        for each in await api.list(plural, namespace, SERVING)
    ]
    return End(
        tuple(_conclusion(each) for each in await api.list("finetunejobs", namespace)),
        tuple(_conclusion(each) for each in runs),
        tuple(_serving(each) for each in deployments),
        frozenset(str(each["metadata"]["name"]) for each in batch_jobs),
        frozenset(servers),
        frozenset(version for each in files for version in served_versions(each)),
    )


def _conclusion(raw: Object) -> Conclusion:
    status: dict[str, Any] = raw.get("status", {})
    judged = status.get("evaluation", {})
    artifact = status.get("artifact", {})
    return Conclusion(
        name=raw["metadata"]["name"],
        state=status.get("state"),
        conditions=_conditions(status),
        verdict=status.get("verdict") or judged.get("verdict"),
        digest=status.get("adapterDigest") or artifact.get("digest"),
        counted_failures=status.get("countedFailures", 0),
        attempt=status.get("attempt", 0),
    )


def _serving(raw: Object) -> Serving:
    status: dict[str, Any] = raw.get("status", {})
    return Serving(
        name=raw["metadata"]["name"],
        state=status.get("state"),
        conditions=_conditions(status),
        adapters=frozenset(
            (each["name"], each["digest"], each["state"]) for each in status.get("adapters", [])
        ),
    )


def _conditions(status: dict[str, Any]) -> frozenset[tuple[str, str, str]]:
    return frozenset(
        (each["type"], each["status"], each["reason"]) for each in status.get("conditions", [])
    )


def served_versions(files: Object) -> set[str]:
    """Of every adapter in a serving pod's desired state, and of one that its weights hold."""
    found = set()
    for text in files.get("data", {}).values():
        try:
            told = json.loads(text)
        except ValueError:
            continue
        if isinstance(told, dict) and "base" in told:
            found |= {version(each["digest"]) for each in told.get("adapters", [])}
            # Merged weights are the base model of their server, under the name of the version.
            _, merged, name = told["base"]["name"].partition("@")
            found |= {name} if merged else set()
    return found


def version(digest: str) -> str:
    """The name that an adapter's version has by its digest."""
    return digest.removeprefix("sha256:")[:VERSION_LENGTH]
