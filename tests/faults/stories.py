"""For every right of the operator a story that does not end well without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tunesmith.adapterdeployment.objects import CALLED_FOR
from tunesmith.api.job_status import JobState
from tunesmith.api.serving_status import Strategy

from tests.faults.api_server import Object, until
from tests.faults.end import SERVING, served_versions, version
from tests.faults.hands import EVALUATES, TRAINS
from tests.faults.scenario import (
    JUDGED,
    OUT_OF_MEMORY,
    PATIENCE_SECONDS,
    SERVED,
    Act,
    Scenario,
    Team,
    deployment,
)
from tests.unit.operator import given

#: What is not as the story wants it in the end, in words.
Lacking = Callable[[Team], Awaitable[list[str]]]


@dataclass(frozen=True)
class Story:
    """A scenario, what must come of it besides its state, and the rights that it needs."""

    scenario: Scenario
    lacking: Lacking
    #: Such as "list jobs".
    shows: frozenset[str]


def rights(**verbs: str) -> frozenset[str]:
    """``rights(jobs="list watch")``; a double underscore is a slash."""
    return frozenset(
        f"{verb} {resource.replace('__', '/')}"
        for resource, words in verbs.items()
        for verb in words.split()
    )


async def present(
    team: Team, plural: str, selector: str = "", wanted: Callable[[Object], object] = bool
) -> list[Object]:
    found = await team.api.list(plural, team.namespace, selector)
    return [each for each in found if wanted(each)]


async def until_present(
    team: Team, plural: str, selector: str = "", wanted: Callable[[Object], object] = bool
) -> Object:
    """The first of them, once there is one."""
    found: list[Object] = []

    async def there() -> bool:
        found[:] = await present(team, plural, selector, wanted)
        return bool(found)

    await until(f"{plural} {selector}", there, PATIENCE_SECONDS, every=0.1)
    return found[0]


def said(*complaints: tuple[object, str]) -> list[str]:
    return [words for is_so, words in complaints if is_so]


# --- what people do ------------------------------------------------------------------------------


def delete_the_job(selector: str) -> Act:
    """By hand, while it runs."""

    async def act(team: Team) -> None:
        job = await until_present(
            team, "jobs", selector, lambda each: each.get("status", {}).get("active")
        )
        name = job["metadata"]["name"]
        await team.api.delete("jobs", team.namespace, name, propagationPolicy="Background")

    return act


async def stop_training(team: Team) -> None:
    await team.until_trains()
    await team.suspend(True)


async def pause_before_training(team: Team) -> None:
    await until_present(team, "evalruns")
    await team.suspend(True)


async def withdraw_what_is_merged(team: Team) -> None:
    await team.serve(Strategy.MERGED)
    await until_present(team, "deployments")
    labels = {"metadata": {"labels": {"team": None}}}
    await team.api.patch("finetunejobs", team.namespace, "triage", labels)


async def train_while_it_serves(team: Team) -> None:
    """On a real node, with a real sidecar; nobody needs vLLM, which this image has not."""
    real = deployment()
    real["spec"]["podTemplate"] = {"image": "tunesmith.dev/operator:dev"}
    await team.api.create("adapterdeployments", team.namespace, real)
    await until_present(team, "pods", SERVING, _sidecar_answers)
    await team.suspend(False)


def _sidecar_answers(pod: Object) -> bool:
    told = pod.get("status", {}).get("initContainerStatuses", [])
    return any(each["name"] == "sidecar" and each.get("started") for each in told)


# --- what must come of it ------------------------------------------------------------------------


async def nothing_else(_: Team) -> list[str]:
    return []


async def an_event(team: Team) -> list[str]:
    return said((not await present(team, "events", wanted=_is_ours), "nobody hears of it"))


def _is_ours(event: Object) -> bool:
    return bool(event["involvedObject"]["kind"] == "FineTuneJob")


async def all_that_serves(team: Team) -> list[str]:
    files = await present(team, "configmaps", SERVING)
    served = {name for each in files for name in served_versions(each)}
    lacks = [
        (not await present(team, plural, SERVING), f"there is no {plural[:-1]} of the server")
        for plural in ("services", "deployments", "poddisruptionbudgets")
    ]
    (own,) = await present(team, "adapterdeployments")
    told = own.get("status", {}).get("state")
    return said(
        (version(given.DIGEST) not in served, "the adapter is not served"),
        *lacks,
        (not told, "the AdapterDeployment says nothing"),
    )


async def two_attempts_at_most(team: Team) -> list[str]:
    left = [len(await present(team, plural, TRAINS)) for plural in ("jobs", "services")]
    return said(
        (left[0] > 2, f"{left[0]} Jobs are left"), (left[1] > 2, f"{left[1]} Services are left")
    )


async def a_job_at_rest(team: Team) -> list[str]:
    runs = await present(team, "jobs", TRAINS, lambda each: not each["spec"].get("suspend"))
    return said((runs, "its Job goes on"))


async def no_run(team: Team) -> list[str]:
    return said((await present(team, "evalruns"), "its EvalRun goes on"))


async def no_server(team: Team) -> list[str]:
    return said((await present(team, "deployments"), "what was withdrawn is served"))


async def a_call(team: Team) -> list[str]:
    pods = await present(team, "pods", SERVING)
    called = any(CALLED_FOR in each["metadata"].get("annotations", {}) for each in pods)
    return said((not called, "the new adapter comes a minute later"))


# --- the stories ---------------------------------------------------------------------------------

SLOWLY = replace(JUDGED, duration="2.5s")
EVERYTHING_WATCHED = (
    "finetunejobs", "evalruns", "adapterdeployments", "jobs", "pods", "deployments",
    "tuningpolicies", "namespaces",
)  # fmt: skip

STORIES = (
    Story(
        JUDGED,
        an_event,
        rights(
            **dict.fromkeys(EVERYTHING_WATCHED, "list watch"),
            leases="get create update",
            events="create",
            finetunejobs__status="patch",
            evalruns__status="patch",
        )
        | rights(jobs="create", evalruns="create"),
    ),
    Story(
        SERVED,
        all_that_serves,
        rights(
            adapterdeployments="get",
            adapterdeployments__status="patch",
            configmaps="get create patch",
            services="get create patch",
            deployments="get create patch",
            poddisruptionbudgets="get create patch",
        ),
    ),
    Story(
        Scenario(
            "failed thrice on two nodes",
            JobState.FAILED,
            {"backoffLimit": 2, "resources": {"gpus": 1, "nodes": 2}},
            simulation=OUT_OF_MEMORY,
        ),
        two_attempts_at_most,
        rights(jobs="delete", services="delete"),
    ),
    Story(
        replace(SLOWLY, name="stopped", ends=JobState.SUSPENDED, act=stop_training),
        a_job_at_rest,
        rights(jobs="patch"),
    ),
    Story(
        Scenario(
            "paused before training",
            JobState.SUSPENDED,
            {"evaluation": {"preflight": "Advise"}},
            act=pause_before_training,
            duration="2.5s",
        ),
        no_run,
        rights(evalruns="delete"),
    ),
    Story(
        Scenario("gone in time", None, {"ttlSecondsAfterFinished": 1}),
        nothing_else,
        rights(finetunejobs="delete"),
    ),
    Story(
        replace(SLOWLY, name="Job of training deleted", act=delete_the_job(TRAINS)),
        nothing_else,
        rights(finetunejobs="get"),
    ),
    Story(
        replace(SLOWLY, name="Job of evaluation deleted", act=delete_the_job(EVALUATES)),
        nothing_else,
        rights(evalruns="get"),
    ),
    Story(
        replace(JUDGED, name="merged and withdrawn", act=withdraw_what_is_merged),
        no_server,
        rights(deployments="delete"),
    ),
    Story(
        replace(JUDGED, name="new to a server", spec={"suspend": True}, act=train_while_it_serves),
        a_call,
        rights(pods="patch"),
    ),
)
