"""Passes and requests are counted while they happen, and shown in traces and log lines."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tunesmith.kube.key import CURRENT, Key
from tunesmith.kube.measuring import measured_requests, what_is_asked
from tunesmith.kube.store import Store
from tunesmith.kube.workqueue import Pass, PassFailed
from yarl import URL

from tests.unit.operator.metrics_told import told
from tests.unit.operator.passes import one_pass

JOB = Key("FineTuneJob", "team", "measured")


async def value(name: str, /, **labels: str) -> float:
    return (await told(Store())).value(name, **labels) or 0


async def passes(error: Exception | None) -> Key | None:
    """One pass that ends so; whom it was about, by its own account."""
    about: list[Key | None] = []

    async def reconcile(_: Key) -> Pass:
        about.append(CURRENT.get())
        if error:
            raise error
        return Pass()

    await one_pass(JOB, reconcile)
    return about[0]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (None, "Done", ""),
        (PassFailed("403: no", "Http403"), "Refused", "Http403"),
        (KeyError("poison"), "Error", "KeyError"),
    ],
)
async def test_a_pass_counts_by_how_it_ended_and_why(
    error: Exception | None, outcome: str, reason: str
) -> None:
    ended = {"kind": JOB.kind, "outcome": outcome}
    before = await value("tunesmith_reconcile_total", **ended)
    took = await value("tunesmith_reconcile_seconds_count", kind=JOB.kind)
    failed = await value("tunesmith_reconcile_errors_total", kind=JOB.kind, reason=reason)
    waited = await value("tunesmith_queue_seconds_count", lane="changed")
    assert await passes(error) == JOB
    assert CURRENT.get() is None
    assert await value("tunesmith_reconcile_total", **ended) == before + 1
    assert await value("tunesmith_reconcile_seconds_count", kind=JOB.kind) == took + 1
    assert await value("tunesmith_queue_seconds_count", lane="changed") == waited + 1
    after = await value("tunesmith_reconcile_errors_total", kind=JOB.kind, reason=reason)
    assert after == failed + bool(error)


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/apis/tunesmith.dev/v1alpha1/finetunejobs", "list finetunejobs"),
        ("GET", "/apis/tunesmith.dev/v1alpha1/finetunejobs?watch=true", "watch finetunejobs"),
        ("GET", "/apis/batch/v1/namespaces/team/jobs?labelSelector=a", "list jobs"),
        ("GET", "/api/v1/namespaces/team/pods/one", "get pods"),
        ("POST", "/api/v1/namespaces/team/events", "create events"),
        ("PATCH", "/apis/t/v1/namespaces/team/evalruns/one/status", "patch evalruns/status"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/s/leases/l", "update leases"),
        ("DELETE", "/apis/batch/v1/namespaces/team/jobs/one", "delete jobs"),
        ("GET", "/api/v1/namespaces/team", "get namespaces"),
        ("GET", "/apis/keda.sh/v1alpha1", "get discovery"),
        ("GET", "/version", "get discovery"),
        ("GET", "/", "get discovery"),
    ],
)
def test_a_request_is_named_as_rbac_names_it(method: str, path: str, asked: str) -> None:
    assert " ".join(what_is_asked(method, URL(f"https://10.0.0.1{path}"))) == asked


async def test_each_request_counts_with_what_was_answered_and_one_without_an_answer_too(
    unused_tcp_port: int,
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=409)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    url = f"http://127.0.0.1:{unused_tcp_port}/api/v1/namespaces/team/pods/one"
    name, asked = "tunesmith_api_requests_total", {"verb": "get", "resource": "pods"}
    before: dict[str, Any] = {
        code: await value(name, **asked, code=code) for code in ("409", "Error")
    }
    async with aiohttp.ClientSession(trace_configs=[measured_requests()]) as session:
        await session.get(url)
        await runner.cleanup()
        with pytest.raises(aiohttp.ClientError):
            await session.get(url)
    after = {code: await value(name, **asked, code=code) for code in before}
    assert after == {code: count + 1 for code, count in before.items()}
