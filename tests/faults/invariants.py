"""What must hold after every fault, and what must have held all along.

Each invariant returns what breaks it, in words; nothing where it holds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.faults.api_server import ApiServer, Object
from tests.faults.end import MANAGED, served_versions, version
from tests.faults.history import History

OWNED = (
    "jobs", "pods", "configmaps", "evalruns", "services", "deployments", "poddisruptionbudgets",
)  # fmt: skip
OWNERS = (
    "finetunejobs", "evalruns", "adapterdeployments", "jobs", "deployments", "replicasets",
)  # fmt: skip


@dataclass(frozen=True)
class Story:
    """One namespace: what is there, and what ever was."""

    api: ApiServer
    namespace: str
    history: History
    #: uids of objects from which somebody took the owner by hand: they are his since.
    disowned: frozenset[str] = frozenset()


async def broken_invariants(story: Story) -> list[str]:
    return [
        *one_job_per_attempt(story),
        *a_verdict_that_has_fallen_stays(story),
        *nothing_is_ready_that_did_not_pass(story),
        *nothing_is_served_that_did_not_pass(story),
        *await no_orphans(story),
    ]


def one_job_per_attempt(story: Story) -> list[str]:
    """Two Jobs of one attempt would train twice, or against each other."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for job in story.history.of(story.namespace, "jobs"):
        metadata = job["metadata"]
        owners = [each["uid"] for each in metadata.get("ownerReferences", [])]
        if owners:
            found[owners[0], metadata["name"]].add(metadata["uid"])
    return [
        f"one_job_per_attempt: {len(uids)} Jobs were called {name}"
        for (_, name), uids in found.items()
        if len(uids) > 1
    ]


def a_verdict_that_has_fallen_stays(story: Story) -> list[str]:
    """No EvalRun ever says something else than it once said of the same adapter."""
    verdicts: dict[str, list[str]] = defaultdict(list)
    for run in story.history.of(story.namespace, "evalruns"):
        if verdict := run.get("status", {}).get("verdict"):
            verdicts[run["metadata"]["uid"]].append(verdict)
    return [
        f"a_verdict_that_has_fallen_stays: EvalRun {uid} said {', then '.join(said)}"
        for uid, said in verdicts.items()
        if len(set(said)) > 1
    ]


def nothing_is_ready_that_did_not_pass(story: Story) -> list[str]:
    """Ready only ever stands beside a passed verdict on exactly this adapter."""
    broken = []
    for job in story.history.of(story.namespace, "finetunejobs"):
        status = job.get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
        if conditions.get("Ready") != "True":
            continue
        judged, digest = status.get("evaluation", {}), status.get("artifact", {}).get("digest")
        if judged.get("verdict") != "Passed" or judged.get("adapterDigest") != digest:
            broken.append(f"nothing_is_ready_that_did_not_pass: {job['metadata']['name']}")
        elif digest not in passed_digests(story):
            broken.append(f"nothing_is_ready_that_did_not_pass: no EvalRun passed {digest}")
    return broken


def nothing_is_served_that_did_not_pass(story: Story) -> list[str]:
    """No adapter is ever in what serving pods are told to serve, unless an EvalRun passed it."""
    passed = {version(each) for each in passed_digests(story)}
    return [
        f"nothing_is_served_that_did_not_pass: {served}"
        for files in story.history.of(story.namespace, "configmaps")
        for served in served_versions(files)
        if served not in passed
    ]


def passed_digests(story: Story) -> set[str]:
    return {
        run["status"]["adapterDigest"]
        for run in story.history.of(story.namespace, "evalruns")
        if run.get("status", {}).get("verdict") == "Passed"
    }


async def no_orphans(story: Story) -> list[str]:
    """Whatever is ours has an owner that exists."""
    api, namespace = story.api, story.namespace
    alive = {
        each["metadata"]["uid"] for plural in OWNERS for each in await api.list(plural, namespace)
    }
    return [
        f"no_orphans: {plural} {each['metadata']['name']}"
        for plural in OWNED
        for each in await api.list(plural, namespace, MANAGED)
        if each["metadata"]["uid"] not in story.disowned and not _is_owned(each, alive)
    ]


def _is_owned(each: Object, alive: set[str]) -> bool:
    owners = [owner["uid"] for owner in each["metadata"].get("ownerReferences", [])]
    return bool(owners) and set(owners) <= alive
