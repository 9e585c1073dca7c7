"""The table of contents: what is watched, and whom a change concerns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvloop

from tunesmith import __version__
from tunesmith.adapterdeployment.observe import observe as observe_deployment
from tunesmith.adapterdeployment.plan import plan as plan_deployment
from tunesmith.api import GROUP, VERSION
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Kind
from tunesmith.evalrun.observe import doubts as doubts_run
from tunesmith.evalrun.observe import observe as observe_run
from tunesmith.evalrun.plan import plan as plan_run
from tunesmith.finetunejob.observe import doubts as doubts_job
from tunesmith.finetunejob.observe import observe as observe_job
from tunesmith.finetunejob.plan import plan as plan_job
from tunesmith.garbage import leave_alone_what_stays
from tunesmith.health import HealthServer
from tunesmith.kube.cluster import ApiError, Cluster
from tunesmith.kube.conditions import is_true
from tunesmith.kube.key import Key, concerned
from tunesmith.kube.labels import MANAGED_BY, MANAGER
from tunesmith.kube.lease import Lease, LeaseSettings
from tunesmith.kube.parsing import readable_conditions
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.policies import Deciding, decided_anew
from tunesmith.kube.reader import CHILDREN, OWN, compare_with_lists
from tunesmith.kube.reconcile import Room, Surroundings, one_pass
from tunesmith.kube.store import Store
from tunesmith.kube.watches import Watched, WatchesEndedError, watch
from tunesmith.kube.workqueue import Lane, Pass, WorkQueue
from tunesmith.logs import configure_logs
from tunesmith.metrics.exposition import Exposition
from tunesmith.settings import Settings, settings
from tunesmith.tracing import traced

log = logging.getLogger(__name__)

#: One room for each kind.
ROOMS: dict[Kind, Room[Any, Any]] = {
    Kind.FINE_TUNE_JOB: Room(FineTuneJob.from_object, observe_job, plan_job, doubts_job),
    Kind.EVAL_RUN: Room(EvalRun.from_object, observe_run, plan_run, doubts_run),
    # There are few of them, and what they do (deleting files, say) is not to be taken back.
    Kind.ADAPTER_DEPLOYMENT: Room(
        AdapterDeployment.from_object, observe_deployment, plan_deployment
    ),
}
#: In this time all watches have begun that begin, or begin again, together.
WATCHES_BEGIN_SECONDS = 5.0
#: What is watched; changes of children concern their owner.
OURS = {MANAGED_BY: MANAGER}
WATCHED = (
    Watched(GROUP, VERSION, "tuningpolicies"),
    Watched("", "v1", "namespaces"),
    Watched(GROUP, VERSION, "finetunejobs"),
    Watched(GROUP, VERSION, "evalruns"),
    Watched(GROUP, VERSION, "adapterdeployments"),
    Watched("batch", "v1", "jobs", OURS),
    Watched("", "v1", "pods", OURS),
    Watched("apps", "v1", "deployments", OURS),
)


def learn(
    queue: WorkQueue, store: Store, raw: Any, gone: bool = False, *, looked: Key | None = None
) -> None:
    """Keep what is new, and look at whom it concerns, but for ``looked``, who made it so."""
    if store.remove(raw) if gone else store.put(raw):
        for key in _concerned(store, raw):
            if key != looked:
                queue.add(key, Lane.NEW if store.is_new(key) else Lane.CHANGED)
        for key in decided_anew(store, raw):
            queue.add(key, Lane.ROUTINE)


def _concerned(store: Store, raw: Any) -> Iterator[Key]:
    """The object itself and its owner; of a job that has trained and a run that has judged the
    deployments beside it, too."""
    yield from concerned(raw)
    if raw["kind"] in OWN and is_true(readable_conditions(raw), "Succeeded"):
        yield from store.keys(raw["metadata"]["namespace"], Kind.ADAPTER_DEPLOYMENT)


async def operate(chosen: Settings, stop: asyncio.Event) -> None:
    """Wait for the lease, then watch and reconcile until told to stop."""
    cluster = await Cluster.connect()
    await _require_definitions(cluster, chosen)
    store = Store()

    async def reconcile(key: Key) -> Pass:
        return await one_pass(ROOMS[Kind(key.kind)], around, key)

    queue = WorkQueue(reconcile, chosen.workers)
    pods = PodHttp(queue.aside)
    around = Surroundings(cluster, store, pods, chosen, partial(learn, queue, store))
    lease = Lease(cluster, LeaseSettings(chosen.operator_namespace, chosen.identity))
    health = HealthServer(chosen.health_port, queue, lease, Exposition(store, queue, lease))
    following: asyncio.Future[None] | None = None
    await health.start()
    try:
        if await _first_of(lease.acquire(), stop.wait()) == 0:
            listen = partial(_listen, stop)
            following = asyncio.ensure_future(_follow(queue, around, listen))
            shielded = asyncio.shield(following)
            await _first_of(lease.keep(), queue.run(), shielded, stop.wait())
    finally:
        with contextlib.suppress(Exception):
            await lease.release()
        if following:
            # Watches take seconds to end. They write nothing: another replica may act meanwhile.
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await health.stop()
        await pods.close()
        await cluster.close()


async def _require_definitions(cluster: Cluster, chosen: Settings) -> None:
    """kopf would never notice a kind that is installed later: better to be started again."""
    for kind in (*Kind, Deciding.POLICY):
        namespace = None if kind == Deciding.POLICY else next(iter(chosen.namespaces), None)
        try:
            await anext(cluster.pages(str(kind), namespace))
        except ApiError as error:
            if error.not_found:
                raise SystemExit(f"the CustomResourceDefinition of {kind} is missing") from error
            raise


async def _follow(queue: WorkQueue, around: Surroundings, began: Callable[[], None]) -> None:
    """See everything that is there, and from then on what changes."""
    await _look_at_all(queue, around)
    leave_alone_what_stays()
    log.info("everything that is there has been seen")
    listed = asyncio.Event()
    told = partial(learn, queue, around.store)
    watching = watch(WATCHED, around.settings.namespaces, told, listed.set, began)
    await _first_of(watching, _look_again(queue, around, listed))
    raise WatchesEndedError("a watch has failed: the log says which, and why")


async def _look_at_all(queue: WorkQueue, around: Surroundings) -> None:
    """Compare what is kept with what is there, and look at what had changed.

    Policies first, as no object may be looked at without what they give it.
    What nobody has looked at before has no children, and does not wait until those of all others
    are listed; for the others, a child that is not listed yet would seem to be missing.
    """
    store, changed = around.store, dict[Key, None]()
    try:
        for kinds in (Deciding, OWN, CHILDREN):
            async for key in compare_with_lists(
                around.cluster, store, kinds, around.settings.namespaces
            ):
                changed[key] = None
                if store.is_new(key):
                    queue.add(key, Lane.NEW)
    finally:
        for key in changed:
            queue.add(key, Lane.ROUTINE)


async def _look_again(queue: WorkQueue, around: Surroundings, listed: asyncio.Event) -> None:
    """Now and then, and soon after a watch began: covers events that never came, what went while
    nobody watched, and changes that no watch tells of."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(listed.wait(), around.settings.resync.total_seconds())
            await asyncio.sleep(WATCHES_BEGIN_SECONDS)
        listed.clear()
        try:
            await _look_at_all(queue, around)
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("not everything could be looked at: %s", error)
        for key in around.store.all_keys(Kind.ADAPTER_DEPLOYMENT):
            queue.add(key, Lane.ROUTINE)
        leave_alone_what_stays()


async def _first_of(*activities: Any) -> int:
    """Run until the first ends, stop the others, and raise what it raised. Its position."""
    tasks = [asyncio.ensure_future(each) for each in activities]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()
    return tasks.index(done.pop())


async def _run(chosen: Settings) -> None:
    stop = asyncio.Event()
    _listen(stop)
    await operate(chosen, stop)


def _listen(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def main() -> None:
    chosen = settings()
    configure_logs(chosen.log_format)
    log.info("tunesmith %s starts as %s", __version__, chosen.identity)
    with traced(chosen.tracing_endpoint):
        uvloop.run(_run(chosen))


if __name__ == "__main__":
    main()
