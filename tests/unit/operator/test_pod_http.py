"""What pods answer is not trusted: their image may be their user's own."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web
from tunesmith.api.serving_contract import REPORT_PATH, ReplicaReport
from tunesmith.kube import pod_http
from tunesmith.kube.pod_http import LARGEST_ANSWER_BYTES, PodHttp, host

REPORT = '{"desired": "abc", "starts": 2, "serving": true, "somethingNew": 1}'
ANSWERS: dict[str, web.Response] = {}


@pytest.fixture
async def sidecar(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A sidecar on loopback that answers what ANSWERS says."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return ANSWERS.get(request.path, web.Response(status=404))

    application = web.Application()
    application.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert server is not None
    port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    monkeypatch.setattr(pod_http, "SIDECAR_PORT", port)
    yield
    await runner.cleanup()
    ANSWERS.clear()


async def report(answer: web.Response) -> ReplicaReport | None:
    ANSWERS[REPORT_PATH] = answer
    http = PodHttp()
    try:
        return await http.replica_report("127.0.0.1")
    finally:
        await http.close()


pytestmark = pytest.mark.usefixtures("sidecar")


async def test_an_honest_answer_is_read() -> None:
    expected = ReplicaReport(desired="abc", starts=2, serving=True)
    assert await report(web.Response(text=REPORT)) == expected


async def test_others_go_on_while_an_answer_is_waited_for() -> None:
    ANSWERS[REPORT_PATH] = web.Response(text=REPORT)
    told: list[str] = []

    @contextmanager
    def aside() -> Iterator[None]:
        told.append("waits")
        yield
        told.append("goes on")

    http = PodHttp(aside)
    assert await http.replica_report("127.0.0.1")
    await http.close()
    assert told == ["waits", "goes on"]


async def test_a_redirect_is_not_followed() -> None:
    ANSWERS["/elsewhere"] = web.Response(text=REPORT)
    moved = web.Response(status=302, headers={"Location": "/elsewhere"})
    assert await report(moved) is None


async def test_an_answer_that_would_fill_the_memory_is_dropped() -> None:
    padded = REPORT.encode() + b" " * LARGEST_ANSWER_BYTES
    assert await report(web.Response(body=padded)) is None


async def test_a_compressed_answer_is_not_unpacked() -> None:
    packed = gzip.compress(REPORT.encode())
    bomb = web.Response(body=packed, headers={"Content-Encoding": "gzip"})
    assert await report(bomb) is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "7",
        "no json",
        "[" * 100_000,
        '{"desired": "abc", "starts": 99999999999999999999, "serving": true}',
        '{"desired": null}',
        '{"desired": "abc", "adapters": [{}]}',
        '{"desired": "abc", "traffic": {"a": {"requests": "many"}}}',
    ],
)
async def test_an_answer_of_another_shape_is_none(text: str) -> None:
    assert await report(web.Response(text=text)) is None


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_an_error_is_none(status: int) -> None:
    assert await report(web.Response(status=status, text=REPORT)) is None


async def test_nobody_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(pod_http, "SIDECAR_PORT", unused.getsockname()[1])
        assert await report(web.Response(text=REPORT)) is None


@pytest.mark.parametrize(
    ("address", "written"), [("10.0.0.7", "10.0.0.7"), ("fd00::1", "[fd00::1]")]
)
def test_addresses_of_version_6_are_bracketed(address: str, written: str) -> None:
    assert host(address) == written
