"""What is sent to the API server."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given
from hypothesis import strategies as st
from kubernetes.aio import client
from tunesmith.kube.cluster import NOT_TO_BE_MERGED, ApiError, Cluster, as_yaml, message_of


@given(st.text())
@example("a status about a row with 💥 in it")
@example('\u2028\x85\ufeff\x7f\x00"\\ \\ud83d\\udca5')
def test_whatever_a_status_says_is_applied_as_it_is(text: str) -> None:
    """The API server reads what is applied as YAML."""
    assert yaml.safe_load(as_yaml({"message": [text]})) == {"message": [text]}


CAUSES = [{"field": "spec.labels", "message": f'Invalid value: "{each}"'} for each in "/~!"]


def test_causes_that_come_in_another_order_make_the_same_sentence() -> None:
    """Else a status that repeats them is written at every look."""
    said = set()
    for order in itertools.permutations(CAUSES):
        listed = ", ".join(each["message"] for each in order)
        status = {"message": f"Job x is invalid: [{listed}]", "details": {"causes": order}}
        said.add(message_of(json.dumps(status)))
    (sentence,) = said
    assert sentence.startswith('Job x is invalid: spec.labels: Invalid value: "!"; spec.labels: ')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"message": "no"}', "no"),
        ('{"message": "no", "details": {"causes": [{"field": "spec"}]}}', "no"),
        ("<html>bad gateway</html>", "<html>bad gateway</html>"),
        ('{"message": "no", "details": []}', '{"message": "no", "details": []}'),
        ("[]", "[]"),
    ],
)
def test_a_refusal_is_told_in_the_api_servers_words(text: str, said: str) -> None:
    assert message_of(text) == said


@pytest.mark.parametrize(
    ("status", "message", "refused"),
    [
        (422, "is invalid", True),
        (403, "exceeded quota", True),
        (500, f"{NOT_TO_BE_MERGED} (a/b; apps/v1, Kind=Deployment): duplicate entries", True),
        (500, "etcdserver: leader changed", False),
        (503, "busy", False),
        (409, "the object has been modified", False),
    ],
)
def test_only_what_would_be_refused_again_is_a_refusal(
    status: int, message: str, refused: bool
) -> None:
    assert ApiError(status, message).refused is refused


@pytest.mark.parametrize(
    ("reason", "exists"), [("AlreadyExists", True), ("Conflict", False), ("", False)]
)
async def test_only_a_name_that_is_taken_is_there_already(reason: str, exists: bool) -> None:
    """A quota that many ask at once is a conflict, too. No real one fails when it is wanted."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"reason": reason, "message": "no"}, status=409)

    application = web.Application()
    application.router.add_post("/apis/batch/v1/namespaces/team/jobs", answer)
    async with TestServer(application) as server:
        host = str(server.make_url("")).rstrip("/")
        cluster = Cluster(client.ApiClient(client.Configuration(host=host)))
        made = cluster.create({"kind": "Job", "metadata": {"name": "any", "namespace": "team"}})
        if exists:
            assert await made is None
        else:
            with pytest.raises(ApiError):
                await made
        await cluster.close()


async def test_a_connection_that_is_cut_is_an_answer_that_never_came() -> None:
    """Else one that is cut while the lease is renewed would end the operator."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cluster = Cluster(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{port}")))
    with pytest.raises(ApiError) as raised:
        await cluster.get("Job", "team", "any")
    await cluster.close()
    server.close()
    assert raised.value.status == 0
    assert str(raised.value).startswith("no answer: ")
