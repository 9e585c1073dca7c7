"""What pods answer is not trusted: their image may be their user's own."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from tunesmith.kube.pod_http import LARGEST_ANSWER_BYTES, PodHttp

MODELS = '{"data": [{"id": "base", "root": "/models/base"}]}'
ANSWERS: dict[str, web.Response] = {}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server on loopback that answers what ANSWERS says."""

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
    yield server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    await runner.cleanup()


async def models(port: int, answer: web.Response) -> dict[str, str]:
    ANSWERS["/v1/models"] = answer
    http = PodHttp()
    try:
        return await http.served_models("127.0.0.1", port)
    finally:
        await http.close()


async def test_an_honest_answer_is_read(port: int) -> None:
    assert await models(port, web.Response(text=MODELS)) == {"base": "/models/base"}


async def test_a_redirect_is_not_followed(port: int) -> None:
    ANSWERS["/elsewhere"] = web.Response(text=MODELS)
    moved = web.Response(status=302, headers={"Location": "/elsewhere"})
    assert await models(port, moved) == {}


async def test_an_answer_that_would_fill_the_memory_is_dropped(port: int) -> None:
    assert await models(port, web.Response(body=b" " * (LARGEST_ANSWER_BYTES + 1))) == {}


async def test_a_compressed_answer_is_not_unpacked(port: int) -> None:
    packed = gzip.compress(MODELS.encode())
    bomb = web.Response(body=packed, headers={"Content-Encoding": "gzip"})
    assert await models(port, bomb) == {}


@pytest.mark.parametrize("text", ["{}", "[]", '{"data": null}', '{"data": [{}]}', "no json"])
async def test_an_answer_of_another_shape_is_none(port: int, text: str) -> None:
    assert await models(port, web.Response(text=text)) == {}
