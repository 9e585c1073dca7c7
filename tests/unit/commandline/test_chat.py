"""What chat asks, whom, and how it reads a streamed answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.commandline.chat import Question, Talk, key_of, model_of, pieces
from tunesmith.commandline.connection import Connection
from tunesmith.commandline.outcome import Refusal, Unreachable

from tests.unit.operator import given

VERSION = "a" * 12
NO_CLUSTER = cast(Connection, None)


def deployment(ready: int = 1, **spec: Any) -> AdapterDeployment:
    adapter = {"name": "triage", "version": VERSION, "digest": given.DIGEST, "uri": "pvc://a/b"}
    raw = given.adapterdeployment(**spec).to_json()
    status = {"baseModelName": "smol", "adapters": [{**adapter, "replicasReady": ready}]}
    return AdapterDeployment.from_object({**raw, "status": status})


def event(content: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': content}}]})}\n\n".encode()


def test_the_adapter_or_the_base_model_is_asked() -> None:
    assert model_of(deployment(), "triage") == "triage"
    assert model_of(deployment(), f"triage@{VERSION}") == f"triage@{VERSION}"
    assert model_of(deployment(), None) == "smol"


def test_an_adapter_that_nobody_serves_is_refused_with_those_that_are() -> None:
    with pytest.raises(Refusal, match="it serves triage"):
        model_of(deployment(), "other")
    with pytest.raises(Refusal, match="it serves none"):
        model_of(deployment(ready=0), "triage")


def test_a_deployment_with_access_wants_a_key_and_says_where_it_may_lie() -> None:
    closed = deployment(access={"secretRef": {"name": "clients"}})
    with pytest.raises(Refusal, match="--key-secret clients/CLIENT"):
        key_of(NO_CLUSTER, closed, None, None)
    assert key_of(NO_CLUSTER, closed, None, "mine") == "mine"
    assert key_of(NO_CLUSTER, deployment(), None, None) is None


def test_the_key_is_sent_as_the_proxy_wants_it() -> None:
    assert Question("m", [], 9, "mine").headers()["Authorization"] == "Bearer mine"
    assert "Authorization" not in Question("m", [], 9).headers()


def test_an_answer_is_read_piece_by_piece() -> None:
    stream = [event("Hel"), b": a comment\n", event("lo"), b"data: [DONE]\n"]
    assert list(pieces(stream)) == ["Hel", "lo"]


def test_an_error_in_the_middle_is_no_end() -> None:
    stream = [event("Hel"), b'data: {"error": {"message": "out of memory"}}\n']
    with pytest.raises(Unreachable, match="out of memory"):
        list(pieces(stream))


class Forwarding:
    """Stands for the way to a pod: what is sent is seen without one."""

    def __init__(self, status: str, body: bytes) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def forwarded(self, _: str, __: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return ours

    def _serve(self, theirs: socket.socket) -> None:
        with theirs, theirs.makefile("rb") as stream:
            length = 0
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.decode().partition(": ")
                length = int(value) if name == "Content-Length" else length
            self.requests.append(json.loads(stream.read(length)))
            theirs.sendall(self._answer)


@contextmanager
def talking(status: str, body: bytes) -> Iterator[tuple[Talk, Forwarding]]:
    way = Forwarding(status, body)
    yield Talk(cast(Connection, way), "pod", "triage", None, 9, system="Be short."), way


def test_the_next_question_is_asked_with_all_that_was_said() -> None:
    with talking("200 OK", event("Paris") + b"data: [DONE]\n\n") as (talk, way):
        assert "".join(talk.ask("The capital of France?")) == "Paris"
        assert "".join(talk.ask("Sure?")) == "Paris"
    roles = [[each["role"] for each in request["messages"]] for request in way.requests]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"]]
    assert way.requests[0]["model"] == "triage"
    assert way.requests[0]["stream"] is True


def test_what_the_server_refuses_is_told_in_its_words() -> None:
    body = json.dumps({"error": {"message": "Give a valid API key."}}).encode()
    with talking("401 Unauthorized", body) as (talk, _), pytest.raises(Refusal, match="valid API"):
        list(talk.ask("Hello"))
    with talking("503 Busy", b"later") as (talk, _), pytest.raises(Unreachable, match="503: later"):
        list(talk.ask("Hello"))
