"""Which event puts which key on the queue. kopf is only the plumbing of the watches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from functools import partial
from typing import Any

import kopf

from tunesmith import __version__
from tunesmith.adapterdeployment.observe import observe as observe_deployment
from tunesmith.adapterdeployment.plan import plan as plan_deployment
from tunesmith.api import GROUP, VERSION
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Kind
from tunesmith.evalrun.observe import observe as observe_run
from tunesmith.evalrun.plan import plan as plan_run
from tunesmith.finetunejob.observe import observe as observe_job
from tunesmith.finetunejob.plan import plan as plan_job
from tunesmith.health import HealthServer
from tunesmith.kube.cluster import ApiError, Cluster
from tunesmith.kube.conditions import is_true
from tunesmith.kube.labels import MANAGED_BY, MANAGER, OWNER_LABELS
from tunesmith.kube.lease import Lease, LeaseSettings
from tunesmith.kube.parsing import readable_conditions
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.reconcile import Room, one_pass
from tunesmith.kube.workqueue import Key, Pass, WorkQueue
from tunesmith.settings import Settings, settings

log = logging.getLogger(__name__)

#: One room for each kind.
ROOMS: dict[Kind, Room[Any, Any]] = {
    Kind.FINE_TUNE_JOB: Room(FineTuneJob.from_object, observe_job, plan_job),
    Kind.EVAL_RUN: Room(EvalRun.from_object, observe_run, plan_run),
    Kind.ADAPTER_DEPLOYMENT: Room(
        AdapterDeployment.from_object, observe_deployment, plan_deployment
    ),
}
PLURALS = {
    Kind.FINE_TUNE_JOB: "finetunejobs",
    Kind.EVAL_RUN: "evalruns",
    Kind.ADAPTER_DEPLOYMENT: "adapterdeployments",
}
#: Children whose changes concern their owner.
CHILDREN = [("batch", "v1", "jobs"), ("", "v1", "pods"), ("apps", "v1", "deployments")]


def registry(queue: WorkQueue) -> kopf.OperatorRegistry:
    """The table of contents: what happens, and whom it concerns."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )

    for kind, plural in PLURALS.items():

        @kopf.on.event(GROUP, VERSION, plural, registry=handlers, id=f"own-{plural}")
        def own_object_changed(body: kopf.Body, kind: Kind = kind, **_: Any) -> None:
            queue.add(_key(kind, body))
            for owner in _owners(body):
                queue.add(owner)
            if kind is not Kind.ADAPTER_DEPLOYMENT:
                _adapters_may_have_changed(queue, body)

    for group, version, plural in CHILDREN:

        @kopf.on.event(
            group,
            version,
            plural,
            registry=handlers,
            id=f"child-{plural}",
            labels={MANAGED_BY: MANAGER},
        )
        def child_changed(body: kopf.Body, **_: Any) -> None:
            for owner in _owners(body):
                queue.add(owner)

    return handlers


def _key(kind: Kind, body: kopf.Body) -> Key:
    return Key(str(kind), str(body.metadata.namespace), str(body.metadata.name))


def _owners(body: kopf.Body) -> list[Key]:
    labels = body.metadata.labels
    namespace = str(body.metadata.namespace)
    return [
        Key(str(kind), namespace, labels[label])
        for kind, label in OWNER_LABELS.items()
        if label in labels
    ]


def _adapters_may_have_changed(queue: WorkQueue, changed: kopf.Body) -> None:
    """A job that has trained or a run that has judged concerns the deployments beside it."""
    conditions = readable_conditions(dict(changed))
    if not is_true(conditions, "Succeeded"):
        return
    for key in sorted(queue.known):
        if key.kind == Kind.ADAPTER_DEPLOYMENT and key.namespace == changed.metadata.namespace:
            queue.add(key)


async def dispatch(cluster: Cluster, pods: PodHttp, chosen: Settings, key: Key) -> Pass:
    return await one_pass(ROOMS[Kind(key.kind)], cluster, pods, chosen, key)


async def operate(chosen: Settings, stop: asyncio.Event) -> None:
    """Wait for the lease, then watch and reconcile until told to stop."""
    cluster = await Cluster.connect()
    await _require_definitions(cluster, chosen)
    pods = PodHttp()
    queue = WorkQueue(
        partial(dispatch, cluster, pods, chosen), chosen.workers, chosen.resync.total_seconds()
    )
    lease = Lease(cluster, LeaseSettings(chosen.operator_namespace, chosen.identity))
    health = HealthServer(chosen.health_port, queue, lease)
    await health.start()
    try:
        if await _first_of(lease.acquire(), stop.wait()) == 0:
            await _first_of(lease.keep(), queue.run(), _watch(queue, chosen), stop.wait())
    finally:
        with contextlib.suppress(Exception):
            await lease.release()
        await health.stop()
        await pods.close()
        await cluster.close()


async def _require_definitions(cluster: Cluster, chosen: Settings) -> None:
    """kopf would never notice a kind that is installed later: better to be started again."""
    for kind in Kind:
        try:
            await cluster.list(str(kind), next(iter(chosen.namespaces), None))
        except ApiError as error:
            if error.not_found:
                raise SystemExit(f"the CustomResourceDefinition of {kind} is missing") from error
            raise


async def _watch(queue: WorkQueue, chosen: Settings) -> None:
    configuration = kopf.OperatorSettings()
    configuration.scanning.disabled = True
    configuration.posting.enabled = False
    configuration.execution.max_workers = chosen.workers
    await kopf.operator(
        registry=registry(queue),
        settings=configuration,
        standalone=True,
        clusterwide=not chosen.namespaces,
        namespaces=chosen.namespaces,
    )


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
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await operate(chosen, stop)


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # kopf tells of every event that reached the queue.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    chosen = settings()
    log.info("tunesmith %s starts as %s", __version__, chosen.identity)
    asyncio.run(_run(chosen))


if __name__ == "__main__":
    main()
