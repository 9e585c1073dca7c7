"""The watches, which kopf keeps up. It carries what they tell, and does nothing else.

kopf would keep what it last handled in annotations, and compares each event with it: three copies
of the whole object, more than half of what an event costs. Nothing here asks for that.

A watch begins with a list, of which it needs the version alone. kopf would hold all that is in it
until each object was handled, more than the memory that the operator may have with some thousands
of jobs. What there is the operator compares page by page, so kopf is given a list of nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import kopf

from tunesmith.kube.measuring import measured_requests

Object = dict[str, Any]

#: Chooses no object, as none can be called so.
NOTHING = "metadata.name=-"
#: So long kopf is given to end.
ENDS_SECONDS = 10.0


class WatchesEndedError(Exception):
    """Nothing is heard of any more: only a new process begins anew."""


@dataclass(frozen=True)
class Watched:
    """Objects of one kind, chosen by labels."""

    group: str
    version: str
    plural: str
    labels: dict[str, str] = field(default_factory=dict)


#: Told an object, and whether it is gone.
Told = Callable[[Object, bool], None]


async def watch(
    resources: Sequence[Watched],
    namespaces: Sequence[str],
    told: Told,
    listed: Callable[[], None],
    began: Callable[[], None],
) -> None:
    """Until cancelled, or until a watch fails; in these namespaces, or in all if there are none.

    ``listed`` is called when a watch begins, or begins again: of what happened before nobody tells.
    ``began`` is called when kopf has made itself the handler of the process's
    signals: whoever wants them takes them back then.
    """
    stop = asyncio.Event()
    # In the end kopf cancels every task but these.
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=_registry(resources, told, listed),
        settings=_settings(resources),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
    began()
    operator = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=others))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Cancelled, kopf would leave its requests behind. Once a watch has failed it waits for the
        # others' requests, which may never end.
        stop.set()
        await asyncio.wait([operator], timeout=ENDS_SECONDS)


def _registry(
    resources: Sequence[Watched], told: Told, listed: Callable[[], None]
) -> kopf.OperatorRegistry:
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**arguments: Any) -> kopf.AiohttpSession | None:
        found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )
        return _session(found, resources, listed) if found else None

    for each in resources:

        @kopf.on.event(
            each.group,
            each.version,
            each.plural,
            labels=each.labels,
            registry=handlers,
            id=each.plural,
        )
        async def changed(event: kopf.RawEvent, **_: Any) -> None:
            told(cast(Object, event["object"]), event["type"] == "DELETED")

    return handlers


def _session(
    found: kopf.ConnectionInfo, resources: Iterable[Watched], listed: Callable[[], None]
) -> kopf.AiohttpSession:
    """A session as kopf would make it, whose requests are counted with ours, and whose lists are
    empty."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=found.as_ssl_context()),
        headers=found.as_http_headers(),
        proxy=found.proxy_url,
        trust_env=found.trust_env,
        trace_configs=[measured_requests()],
        middlewares=[_without_objects({each.plural for each in resources}, listed)],
    )
    return kopf.AiohttpSession(
        server=found.server, default_namespace=found.default_namespace, aiohttp_session=session
    )


def _without_objects(
    plurals: AbstractSet[str], listed: Callable[[], None]
) -> aiohttp.ClientMiddlewareType:
    """Has lists of these kinds choose nothing, and calls ``listed`` after each."""

    async def send(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        is_list = request.method == "GET" and request.url.name in plurals
        if not is_list or "watch" in request.url.query:
            return await handler(request)
        request.url = request.url.update_query(fieldSelector=NOTHING)
        response = await handler(request)
        listed()
        return response

    return send


def _settings(resources: Iterable[Watched]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    for each in resources:
        # What handlers choose by labels kopf would fetch as a whole: every pod of the cluster.
        if each.labels:
            selector = ",".join(f"{key}={value}" for key, value in each.labels.items())
            chosen = (each.group, each.version, each.plural)
            settings.watching.label_selectors[chosen] = selector
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NothingHandled()
    settings.persistence.progress_storage = _NoProgress()
    return settings


class _NothingHandled(kopf.DiffBaseStorage):
    """Remembers nothing of what was handled."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """There is nothing to store."""


class _NoProgress(kopf.ProgressStorage):
    """Remembers nothing of handlers that are tried again: there are none."""

    def fetch(self, **_: Any) -> kopf.ProgressRecord | None:
        return None

    def store(self, **_: Any) -> None:
        """There is nothing to store."""

    def purge(self, **_: Any) -> None:
        """There is nothing to purge."""

    def touch(self, **_: Any) -> None:
        """There is nothing to touch."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
