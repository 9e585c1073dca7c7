"""What people and nodes do to a job, its children and its surroundings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from devcluster.layout import own_layout
from devcluster.simulation import add_nodes
from tunesmith.api.job_status import JobState, TrainingPhase

from examples.demo.kubectl import conditions
from tests.cluster.manifests import claim
from tests.faults.api_server import Object, path, until
from tests.faults.end import MANAGED, SERVING, Conclusion, End
from tests.faults.played_trainer import trainer_that_says
from tests.faults.scenario import JOB, JUDGED, SERVED, SIMULATION
from tests.faults.trial import Hand, Run

PREPARES, TRAINS = "tunesmith.dev/stage=prepare", "tunesmith.dev/stage=train"
EVALUATES = "tunesmith.dev/evalrun"
MERGES = "tunesmith.dev/purpose=merge"
DOOMED = "faults.tunesmith.dev/doomed"
#: Time enough to lay hands on what runs.
SLOWLY = replace(JUDGED, name="trained and judged slowly", duration="1.5s")
#: Time enough to hear what its trainer says.
TOLD_OF = replace(JUDGED, name="trained, and told of meanwhile", duration="5s")
SERVED_SLOWLY = replace(SERVED, name="judged slowly and served", duration="1.5s")
#: A simulated replica says nothing: the operator waits three seconds for its word, and looks again
#: a second later. What has become of the replicas it has said by then.
LOOKS_SECONDS = 7.0
NOT_STARTED = replace(
    JUDGED, name="trained and judged once its pods start", simulation={"never-starts": "true"}
)
SILENT_SECONDS = 60.0
LATER_CLAIM = replace(
    JUDGED, name="trained and judged once its claim is there",
    spec={"output": {"uri": "pvc://later"}},
)  # fmt: skip
ON_DOOMED_NODES = replace(
    JUDGED, name="trained on a node that is lost", duration="4s", nodes=DOOMED
)
FROM_CONFIG_MAP = replace(
    NOT_STARTED, name="trained from a ConfigMap", spec={"dataset": {"uri": "configmap://rows/rows"}}
)


# --- what must come of it ------------------------------------------------------------------------


def same_outcome(expected: End, found: End) -> list[str]:
    """The same result, whatever attempts it took."""
    return _without_attempts(found).differences(_without_attempts(expected))


def same_job(expected: End, found: End) -> list[str]:
    """The same of the FineTuneJob, whatever became of its children."""
    kept = [replace(_without_attempts(each), evalruns=()) for each in (found, expected)]
    return kept[0].differences(kept[1])


def _without_attempts(end: End) -> End:
    def without(told: tuple[Conclusion, ...]) -> tuple[Conclusion, ...]:
        return tuple(replace(each, attempt=0) for each in told)

    return replace(
        end,
        finetunejobs=without(end.finetunejobs),
        evalruns=without(end.evalruns),
        batch_jobs=frozenset(),
    )


# --- when ----------------------------------------------------------------------------------------

When = Callable[[Run], Awaitable[object]]


def state(*states: JobState) -> When:
    """The job is in one of these states."""

    async def reached(run: Run) -> None:
        await run.team.until_state(*states)

    return reached


async def trains(run: Run) -> None:
    await run.team.until_trains()


async def saves(run: Run) -> None:
    """The pod of training runs and says that it stores the adapter; the job tells of it."""
    await trains(run)
    async with trainer_that_says(TrainingPhase.SAVING) as address:
        pod = (await latest(run, "pods", TRAINS))["metadata"]
        answering = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
        await run.team.api.patch("pods", pod["namespace"], pod["name"], answering, "status")
        await run.team.until_state(JobState.SAVING)


async def merges(run: Run) -> None:
    """The pod that merges the adapter into the base model's weights runs."""

    async def runs() -> bool:
        jobs = await run.team.api.list("jobs", run.team.namespace, MERGES)
        return any(each.get("status", {}).get("active") for each in jobs)

    await until("an adapter is merged", runs, 60, every=0.1)


async def evaluates(run: Run) -> None:
    """The pod of the EvalRun runs."""

    async def runs() -> bool:
        jobs = await run.team.api.list("jobs", run.team.namespace, EVALUATES)
        return any(each.get("status", {}).get("active") for each in jobs)

    await until("an evaluation runs", runs, 60, every=0.1)


async def served(run: Run) -> None:
    """The server is told of an adapter, and its Deployment stands."""
    await run.team.until_served()
    await until_it_stands(run)


async def until_it_stands(run: Run, besides: str = "") -> Object:
    """Until the server's Deployment, other than the one of this uid, has every pod that it wants
    and no other; the Deployment."""
    found: list[Object] = []

    async def stands() -> bool:
        seen = await run.team.api.list("deployments", run.team.namespace, SERVING)
        found[:] = [each for each in seen if each["metadata"]["uid"] != besides]
        return bool(found) and all(map(_stands, found))

    await until("the server's Deployment stands", stands, 60)
    return found[0]


def _stands(deployment: Object) -> bool:
    """As ``kubectl rollout status`` sees it."""
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    counted = ("replicas", "updatedReplicas", "readyReplicas")
    return all(status.get(each, 0) == wanted for each in counted)


# --- what ----------------------------------------------------------------------------------------


async def latest(run: Run, plural: str, selector: str) -> Object:
    """The youngest object of ours; waits until there is one."""
    found: list[Object] = []

    async def exists() -> bool:
        found[:] = await run.team.api.list(plural, run.team.namespace, selector)
        return bool(found)

    await until(f"{plural} {selector} is there", exists, 60, every=0.1)
    return max(found, key=lambda each: str(each["metadata"]["creationTimestamp"]))


def deleted(plural: str, selector: str, when: When, **options: object) -> Hand:
    async def hand(run: Run) -> None:
        await when(run)
        name = (await latest(run, plural, selector))["metadata"]["name"]
        # As kubectl does it.
        chosen = {"propagationPolicy": "Background", **options}
        await run.team.api.delete(plural, run.team.namespace, name, **chosen)

    return hand


def patched(plural: str, selector: str, when: When, patch: Object) -> Hand:
    async def hand(run: Run) -> None:
        await when(run)
        each = await latest(run, plural, selector)
        await run.team.api.patch(plural, run.team.namespace, each["metadata"]["name"], patch)

    return hand


def wiped(plural: str, when: When) -> Hand:
    """As ``kubectl patch --subresource=status`` does it."""

    async def hand(run: Run) -> None:
        await when(run)
        each = await latest(run, plural, "")
        name = each["metadata"]["name"]
        await run.team.api.patch(plural, run.team.namespace, name, {"status": None}, "status")

    return hand


def disowned(plural: str, selector: str, when: When) -> Hand:
    """Its owner references are removed; the garbage collector leaves it alone from then on."""

    async def hand(run: Run) -> None:
        await when(run)
        each = (await latest(run, plural, selector))["metadata"]
        run.story = replace(run.story, disowned=run.story.disowned | {each["uid"]})
        patch = {"metadata": {"ownerReferences": None}}
        await run.team.api.patch(plural, run.team.namespace, each["name"], patch)

    return hand


def told_and_deleted(taking: Hand) -> Hand:
    """An EvalRun is made somebody else's; the job says that the name is taken, and by what."""

    async def hand(run: Run) -> None:
        await taking(run)

        async def is_told() -> bool:
            stalled = conditions(await run.team.job() or {}).get("Stalled", {})
            return stalled.get("reason") == "NameTaken"

        await until("it is told that the name is taken", is_told, 60)
        each = await latest(run, "evalruns", "")
        await run.team.api.delete("evalruns", run.team.namespace, each["metadata"]["name"])

    return hand


async def evict_the_pod(run: Run) -> None:
    await trains(run)
    pod = (await latest(run, "pods", TRAINS))["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"]},
    }
    target = path("pods", pod["namespace"], pod["name"], "eviction")
    await run.team.api.request("POST", target, eviction)


async def suspend_the_training_for_a_while(run: Run) -> None:
    """Who suspends a Job by hand keeps it so: the FineTuneJob says that it waits, until the same
    hand lets it go on."""
    name = (await run.team.until_trains())["metadata"]["name"]
    api, namespace = run.team.api, run.team.namespace
    await api.patch("jobs", namespace, name, {"spec": {"suspend": True}})

    async def is_told() -> bool:
        """Unless the hand came too late."""
        said = conditions(await run.team.job() or {}).get("Succeeded", {})
        return "is resumed" in said.get("message", "") or await run.team.state() == JobState.READY

    await until("it is told that the Job waits", is_told, 60, every=0.1)
    await api.patch("jobs", namespace, name, {"spec": {"suspend": False}})


async def delete_the_server(run: Run) -> None:
    """Its Deployment, with the pods. Another one follows."""
    await served(run)
    gone = (await latest(run, "deployments", SERVING))["metadata"]
    background = {"propagationPolicy": "Background"}
    await run.team.api.delete("deployments", run.team.namespace, gone["name"], **background)
    await until_it_stands(run, besides=gone["uid"])
    await asyncio.sleep(LOOKS_SECONDS)


def server_edited(edit: Callable[[Object], Object]) -> Hand:
    """Its Deployment's spec, as ``kubectl edit`` does it. It becomes as it was."""

    async def hand(run: Run) -> None:
        await served(run)
        before = await latest(run, "deployments", SERVING)
        api, metadata = run.team.api, before["metadata"]
        where = "deployments", metadata["namespace"], metadata["name"]
        await api.patch(*where, {"spec": edit(before["spec"])})

        async def is_as_it_was() -> bool:
            found = await api.get(*where) or {}
            return "spec" in found and _runs(found["spec"]) == _runs(before["spec"])

        await until("the Deployment is as it was", is_as_it_was, 60)
        await until_it_stands(run)
        await asyncio.sleep(LOOKS_SECONDS)

    return hand


def _runs(spec: Object) -> tuple[int, list[list[str]]]:
    """How many pods of a Deployment run, and what."""
    containers = spec["template"]["spec"]["containers"]
    return spec["replicas"], [each["command"] for each in containers]


def to_no_replicas(_: Object) -> Object:
    return {"replicas": 0}


def to_another_command(spec: Object) -> Object:
    """All else that a container has is given again: a merge patch replaces a list as a whole."""
    containers = spec["template"]["spec"]["containers"]
    changed = [{**each, "command": ["sleep", "infinity"]} for each in containers]
    return {"template": {"spec": {"containers": changed}}}


def no_longer_served(when: When) -> Hand:
    """The AdapterDeployment is deleted."""

    async def hand(run: Run) -> None:
        await when(run)
        name = (await latest(run, "adapterdeployments", ""))["metadata"]["name"]
        await run.team.api.delete("adapterdeployments", run.team.namespace, name)

    return hand


async def served_anew(run: Run) -> None:
    """The AdapterDeployment is deleted, and applied again before what it had is collected."""
    await served(run)
    gone = (await latest(run, "deployments", SERVING))["metadata"]["uid"]
    await no_longer_served(served)(run)
    await run.team.serve()
    await until_it_stands(run, besides=gone)
    await asyncio.sleep(LOOKS_SECONDS)


async def start_pods(run: Run) -> None:
    """Let every pod start, until the job is done."""
    api, namespace = run.team.api, run.team.namespace
    started = {"metadata": {"annotations": {f"{SIMULATION}/never-starts": None}}}
    while await run.team.state() not in (JobState.READY, JobState.FAILED):
        for pod in await api.list("pods", namespace, MANAGED):
            if f"{SIMULATION}/never-starts" in pod["metadata"].get("annotations", {}):
                await api.patch("pods", namespace, pod["metadata"]["name"], started)
        await asyncio.sleep(0.3)


async def no_image(run: Run) -> None:
    """The kubelet's word for an image that is missing; KWOK, in its place, pulls none."""
    pod = (await latest(run, "pods", MANAGED))["metadata"]
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    said = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    status = {"containerStatuses": [{**said, "state": {"waiting": waiting}}]}
    patch = {"status": status}
    await run.team.api.patch("pods", pod["namespace"], pod["name"], patch, "status")
    await run.team.until_state(JobState.WAITING)
    await start_pods(run)


async def claim_comes_later(run: Run) -> None:
    await run.team.until_state(JobState.WAITING)
    await run.team.api.create("persistentvolumeclaims", run.team.namespace, claim("later"))


async def config_map_goes_and_comes(run: Run) -> None:
    api, namespace = run.team.api, run.team.namespace
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}}
    await api.create("configmaps", namespace, {**rows, "data": {"rows": "{}"}})
    await latest(run, "pods", MANAGED)
    await api.delete("configmaps", namespace, "rows")
    await run.team.until_state(JobState.WAITING)
    await api.create("configmaps", namespace, {**rows, "data": {"rows": "{}"}})
    await start_pods(run)


async def lose_the_node(run: Run) -> None:
    """The node's object goes, as from a cloud's autoscaler; another of its kind comes."""
    await asyncio.to_thread(add_doomed_node, "doomed-1")
    await trains(run)
    await run.team.api.delete("nodes", None, "doomed-1")
    await asyncio.to_thread(add_doomed_node, "doomed-2")


def add_doomed_node(name: str) -> None:
    add_nodes(own_layout(), [name], 8, label=DOOMED)


async def pod_does_not_end(run: Run) -> None:
    """It is deleted, and its node does not say that it ended, until a person has read of it and
    done something."""
    api, namespace = run.team.api, run.team.namespace
    pod = (await latest(run, "pods", MANAGED))["metadata"]["name"]
    await api.patch("pods", namespace, pod, silent("true"))
    await api.delete("pods", namespace, pod, gracePeriodSeconds=1)

    async def told() -> bool:
        job = await run.team.job() or {}
        stalled = conditions(job).get("Stalled", {})
        return stalled.get("reason") == "PodNotEnding" and pod in stalled["message"]

    await until("the job tells of the pod", told, SILENT_SECONDS, every=0.5)
    await api.patch("pods", namespace, pod, silent(None))
    await start_pods(run)


def silent(word: str | None) -> Object:
    return {"metadata": {"annotations": {f"{SIMULATION}/silent": word}}}


async def delete_and_apply_again(run: Run) -> None:
    await trains(run)
    await run.team.api.delete("finetunejobs", run.team.namespace, JOB)

    async def is_gone() -> bool:
        return await run.team.job() is None

    await until("the job is gone", is_gone, 30, every=0.05)
    await run.team.apply(SLOWLY)


def namespace_deleted(when: JobState | None) -> Hand:
    """A second namespace of the same operator goes, with all that is in it."""

    async def hand(run: Run) -> None:
        api, name = run.team.api, doomed(run.team.namespace)
        team = replace(run.team, namespace=name)
        await api.create("namespaces", None, {"metadata": {"name": name}})
        await api.create("persistentvolumeclaims", name, claim("adapters"))
        try:
            await team.apply(SLOWLY)
            if when:
                await team.until_state(when, JobState.READY)
        finally:
            await api.delete("namespaces", None, name)

        async def is_gone() -> bool:
            return await api.get("namespaces", None, name) is None

        await until("the namespace is gone", is_gone, 60)

    return hand


def doomed(namespace: str) -> str:
    return f"{namespace}-doomed"
