"""Stories of FineTuneJobs: what a person does, how the simulated pods end, and what must come.

Pods run for a second or less; what they would have said is written into the job's pod template.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA
from tunesmith.api.job_status import FINISHED, JobState
from tunesmith.api.serving_status import Strategy
from tunesmith.api.trainer_contract import EvaluationOutcome, TerminationMessage
from tunesmith.kube.labels import QUEUE_NAME

from tests.faults.api_server import ApiServer, Object, until
from tests.faults.end import MANAGED, SERVING, served_versions
from tests.unit.operator import given

JOB = "triage"
TEAM = {"team": "faults"}
BASE = "pvc://adapters/smol"
SIMULATION = "simulation.tunesmith.dev"
ON_SIMULATED_NODES = {
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"key": "tunesmith.dev/simulated", "operator": "Exists"}],
}
#: Longer than the longest pause of the API server.
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Team:
    """A namespace in which a story is told."""

    api: ApiServer
    namespace: str

    async def job(self) -> Object | None:
        return await self.api.get("finetunejobs", self.namespace, JOB)

    async def state(self) -> str | None:
        """Of the job; None when there is none."""
        job = await self.job()
        return str(job.get("status", {}).get("state", "")) if job else None

    async def until_state(self, *states: str | None, seconds: float = PATIENCE_SECONDS) -> None:
        async def reached() -> bool:
            return await self.state() in states

        await until(f"{JOB} is {' or '.join(map(str, states))}", reached, seconds, every=0.15)

    async def until_trains(self) -> Object:
        """Until the pod of training runs; the Job."""
        found: list[Object] = []

        async def runs() -> bool:
            stage = "tunesmith.dev/stage=train"
            jobs = await self.api.list("jobs", self.namespace, stage)
            found[:] = [each for each in jobs if each.get("status", {}).get("active")]
            return bool(found)

        await until("training runs", runs, PATIENCE_SECONDS, every=0.1)
        return found[0]

    async def until_replicas_answer(self) -> None:
        """Until every AdapterDeployment says so: what it says then is said for good."""

        async def answer() -> bool:
            found = await self.api.list("adapterdeployments", self.namespace)
            return all(each.get("status", {}).get("readyReplicas") for each in found)

        await until("replicas answer", answer, PATIENCE_SECONDS)

    async def until_served(self) -> None:
        """Until a server is told of an adapter, and the AdapterDeployment tells of it."""

        async def is_served() -> bool:
            files = await self.api.list("configmaps", self.namespace, SERVING)
            own = await self.api.list("adapterdeployments", self.namespace)
            told = any(each.get("status", {}).get("adapters") for each in own)
            return told and any(served_versions(each) for each in files)

        await until("an adapter is served", is_served, PATIENCE_SECONDS)

    async def suspend(self, suspend: bool) -> None:
        await self.api.patch("finetunejobs", self.namespace, JOB, {"spec": {"suspend": suspend}})

    async def apply(self, scenario: Scenario) -> None:
        if scenario.served:
            await self.serve(scenario.served)
        await self.api.create("finetunejobs", self.namespace, scenario.manifest())

    async def serve(self, strategy: Strategy = Strategy.ADAPTERS) -> None:
        """Whatever passes."""
        await self.api.create("adapterdeployments", self.namespace, deployment(strategy))


Act = Callable[[Team], Awaitable[None]]


async def nothing(_: Team) -> None:
    """The job is applied, and that is all."""


@dataclass(frozen=True)
class Scenario:
    """A job, what a person does meanwhile, and the state in which it ends; None: it is gone."""

    name: str
    ends: JobState | None
    spec: dict[str, Any] = field(default_factory=dict)
    #: Of the job, besides its team's.
    labels: dict[str, str] = field(default_factory=dict)
    #: How its pods end.
    simulation: dict[str, str] = field(default_factory=dict)
    act: Act = nothing
    duration: str = "0.3s"
    #: A label of the nodes that take its pods, and a taint that keeps all others away.
    nodes: str = ""
    #: How an AdapterDeployment beside it serves whatever passes; None: there is none.
    served: Strategy | None = None

    def manifest(self) -> Object:
        tainted = ("tunesmith.dev/simulated", self.nodes)
        said = {"message": last_word().to_line(), "duration": self.duration, **self.simulation}
        return {
            "apiVersion": "tunesmith.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": JOB, "labels": TEAM | self.labels},
            "spec": {
                "baseModel": {"uri": BASE},
                "dataset": {"uri": "pvc://adapters/rows.jsonl"},
                "output": {"uri": "pvc://adapters/tuned"},
                "evaluation": {"preflight": "Skip"},
                "podTemplate": {
                    "nodeSelector": {"type": "kwok", **({self.nodes: ""} if self.nodes else {})},
                    "tolerations": [{"key": key, "operator": "Exists"} for key in tainted if key],
                    "annotations": {f"{SIMULATION}/{key}": text for key, text in said.items()},
                },
                **self.spec,
            },
        }


def deployment(strategy: Strategy = Strategy.ADAPTERS) -> Object:
    """Of whatever passes. Its simulated pods start, and never prove anything."""
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": "serving"},
        "spec": {
            "baseModel": {"uri": BASE},
            "strategy": str(strategy),
            "adapters": {"selector": {"matchLabels": TEAM}},
            "resources": {"gpus": 0},
            "podTemplate": ON_SIMULATED_NODES,
        },
    }


def last_word(measured: EvaluationOutcome | None = None) -> TerminationMessage:
    """One for the pods of all stages: each is asked for its own part of it."""
    return given.outcome().model_copy(
        update={"training": given.trained().training, "evaluation": measured or given.measured()}
    )


#: Who is killed says nothing any more.
OUT_OF_MEMORY = {
    "exit-code": "137",
    "reason": "OOMKilled",
    "only": "train",
    "failure-message": "Killed",
}


async def suspend_and_resume(team: Team) -> None:
    await team.until_trains()
    await team.suspend(True)
    await team.until_state(JobState.SUSPENDED, JobState.READY)
    await team.suspend(False)


async def approve(team: Team) -> None:
    """The data, as the person would who has looked at it."""
    await team.until_state(JobState.AWAITING_REVIEW)
    job = await team.job()
    assert job, "nobody deletes it before it is approved"
    approval = {APPROVED_DATA: job["status"]["dataset"]["digest"], APPROVED_BY: "ada"}
    await team.api.patch(
        "finetunejobs", team.namespace, JOB, {"metadata": {"annotations": approval}}
    )


async def approve_and_admit(team: Team) -> None:
    """Plays Kueue, too, which is not here: every Job that waits in the queue may go."""
    await approve(team)

    async def finished() -> bool:
        for job in await team.api.list("jobs", team.namespace, MANAGED):
            if job["spec"].get("suspend"):
                name = job["metadata"]["name"]
                await team.api.patch("jobs", team.namespace, name, {"spec": {"suspend": False}})
        return await team.state() in {None, *FINISHED}

    await until("every Job is admitted", finished, PATIENCE_SECONDS)


async def delete_midway(team: Team) -> None:
    await team.until_trains()
    await team.api.delete("finetunejobs", team.namespace, JOB)


JUDGED = Scenario("trained and judged", JobState.READY)
SERVED = replace(JUDGED, name="judged and served", served=Strategy.ADAPTERS)
MERGED = replace(JUDGED, name="judged, merged and served", served=Strategy.MERGED)
#: What does not pass is not served: nothing else differs from SERVED.
REJECTED = Scenario(
    "trained and rejected",
    JobState.REJECTED,
    simulation={"message": last_word(given.measured(-30, -10, difference=-20)).to_line()},
    served=Strategy.ADAPTERS,
)
RETRIED = Scenario(
    "failed once and retried", JobState.READY, simulation={**OUT_OF_MEMORY, "only-attempt": "1"}
)
FAILED = Scenario(
    "failed at its limit", JobState.FAILED, {"backoffLimit": 1}, simulation=OUT_OF_MEMORY
)
SUSPENDED = Scenario(
    "suspended and resumed", JobState.READY, act=suspend_and_resume, duration="1.5s"
)
#: Whose Jobs wait until they are admitted.
QUEUED = replace(JUDGED, name="queued", labels={QUEUE_NAME: "fine-tuning"})
#: Everything that may lie between a job and its training.
ADMITTED = replace(
    QUEUED,
    name="approved, measured beforehand and admitted",
    spec={
        "dataset": {"uri": "pvc://adapters/rows.jsonl", "review": {"required": True}},
        "evaluation": {"preflight": "Advise"},
    },
    act=approve_and_admit,
)
#: Nobody has to delete it.
EXPIRED = replace(
    JUDGED, name="judged, and gone by itself", ends=None, spec={"ttlSecondsAfterFinished": 1}
)
DELETED = Scenario("deleted midway", None, act=delete_midway, duration="1.5s")
#: The server stays, and holds nothing.
DELETED_BESIDE_A_SERVER = replace(DELETED, name="deleted beside a server", served=Strategy.ADAPTERS)

SCENARIOS = (JUDGED, SERVED, MERGED, RETRIED, FAILED, SUSPENDED, ADMITTED, EXPIRED, DELETED)
