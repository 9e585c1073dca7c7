"""The watches end when one of them has failed: an operator that hears nothing must not live on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tunesmith.kube import watches
from tunesmith.kube.watches import NOTHING, Watched, watch

#: kopf itself waits five seconds for requests that do not end.
ENDS_SECONDS = 20.0
#: Paths and questions of the requests.
ASKED: list[tuple[str, dict[str, str]]] = []
KINDS = {
    "/api/v1": {"pods": "Pod", "namespaces": "Namespace"},
    "/apis/batch/v1": {"jobs": "Job"},
}


@asynccontextmanager
async def api_server() -> AsyncIterator[str]:
    """A fake, as no real one can be asked to refuse one watch of its administrator: it has no
    objects, refuses to watch pods, and lets all other watches wait."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.path
        ASKED.append((path, dict(request.query)))
        if path in KINDS:
            known = {"namespaced": True, "singularName": "", "verbs": ["list", "watch", "patch"]}
            kinds = [known | {"name": plural, "kind": kind} for plural, kind in KINDS[path].items()]
            return web.json_response({"resources": kinds})
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            version = {"groupVersion": "batch/v1", "version": "v1"}
            group = {"name": "batch", "versions": [version], "preferredVersion": version}
            return web.json_response({"groups": [group]})
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
        if path.endswith("/pods"):
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        stream = web.StreamResponse()
        await stream.prepare(request)
        await asyncio.Event().wait()
        return stream

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def kubeconfig(folder: Path, address: str) -> Path:
    path = folder / "kubeconfig"
    content = {
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": address}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
    }
    path.write_text(json.dumps(content))
    return path


async def test_when_one_watch_is_refused_all_of_them_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = watches._settings

    def impatient(resources: Iterable[Watched]) -> object:
        settings = usual(resources)
        settings.networking.error_backoffs = (0.1,)
        return settings

    monkeypatch.setattr(watches, "_settings", impatient)
    began: list[bool] = []
    listed: list[bool] = []
    async with api_server() as address:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, address)))
        watching = watch(
            [Watched("", "v1", "pods", {"app": "ours"}), Watched("batch", "v1", "jobs")],
            ["team"],
            lambda _, __: None,
            lambda: listed.append(True),
            lambda: began.append(True),
        )
        await asyncio.wait_for(watching, ENDS_SECONDS)
    assert began == [True]
    asked = [(path.rpartition("/")[2], how) for path, how in ASKED if "namespaces/team" in path]
    chosen = {plural: how.get("labelSelector", "") for plural, how in asked}
    assert chosen == {"pods": "app=ours", "jobs": ""}, "every pod of the cluster would be sent"
    lists = [how for _, how in asked if "watch" not in how]
    assert {each["fieldSelector"] for each in lists} == {NOTHING}, "thousands would be one answer"
    assert len(lists) == len(listed), "what happened before nobody tells of"
