"""``chat``: ask an adapter, or its base model, through a port of a pod that serves it.

Not through the API server's proxy of Services: that keeps the header Authorization for itself, and
a deployment with access needs it.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from tunesmith.adapterdeployment.objects import Role, pod_labels
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.serving_contract import PROXY_PORT
from tunesmith.commandline.connection import Connection, Object
from tunesmith.commandline.outcome import Refusal, Unreachable
from tunesmith.kube.pods import is_ready

#: Instead of --key: a key on the command line is seen by others.
KEY_VARIABLE = "TUNESMITH_API_KEY"

Message = dict[str, str]


@dataclass(frozen=True)
class Question:
    """What is asked of a model."""

    model: str
    messages: list[Message]
    max_tokens: int
    key: str | None = None

    def body(self) -> str:
        return json.dumps(
            {
                "model": self.model,
                "messages": self.messages,
                "max_tokens": self.max_tokens,
                "temperature": 0,
                "stream": True,
            }
        )

    def headers(self) -> dict[str, str]:
        authorization = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"Content-Type": "application/json", **authorization}


@dataclass
class Talk:
    """Questions and answers, each asked with all that was said before."""

    connection: Connection
    pod: str
    model: str
    key: str | None
    max_tokens: int
    system: str | None = None
    said: list[Message] = field(default_factory=list)

    def ask(self, text: str) -> Iterator[str]:
        """The answer, piece by piece. Raises Refusal or Unreachable with what the server says."""
        self.said.append({"role": "user", "content": text})
        system = [{"role": "system", "content": self.system}] if self.system else []
        question = Question(self.model, [*system, *self.said], self.max_tokens, self.key)
        way = self.connection.forwarded(self.pod, PROXY_PORT)
        answer = []
        try:
            for piece in spoken(way, question):
                answer.append(piece)
                yield piece
        finally:
            way.close()
        self.said.append({"role": "assistant", "content": "".join(answer)})


def model_of(deployment: AdapterDeployment, adapter: str | None) -> str:
    """The name for a request's model field. Raises Refusal for an adapter that is not served."""
    status = deployment.status
    if adapter is None:
        if status.base_model_name is None:
            raise Refusal(f"{deployment.metadata.name} does not serve yet: {status.state or 'new'}")
        return status.base_model_name
    served = {each.name for each in status.adapters if each.replicas_ready}
    served |= {f"{each.name}@{each.version}" for each in status.adapters if each.replicas_ready}
    if adapter not in served:
        names = ", ".join(sorted(served)) or "none"
        raise Refusal(f"{deployment.metadata.name} serves no adapter {adapter}; it serves {names}")
    return adapter


def key_of(
    connection: Connection, deployment: AdapterDeployment, secret_key: str | None, given: str | None
) -> str | None:
    """The API key: from SECRET/KEY or from the environment, or none where none is wanted.

    Raises Refusal where one is wanted and none is named.
    """
    if secret_key:
        secret, _, client = secret_key.partition("/")
        entries = connection.get("Secret", secret).get("data", {})
        if client not in entries:
            raise Refusal(f"the Secret {secret} has no key {client!r}")
        return base64.b64decode(entries[client]).decode()
    access = deployment.spec.access
    if access and not given:
        raise Refusal(
            f"{deployment.metadata.name} lets only its clients ask: name one with --key-secret "
            f"{access.secret_ref.name}/CLIENT, or set {KEY_VARIABLE}"
        )
    return given


def serving_pod(connection: Connection, deployment: AdapterDeployment) -> str:
    """A pod that answers. Raises Refusal where there is none."""
    pods = connection.list("Pod", pod_labels(deployment, Role.ADAPTERS))
    ready = [str(each["metadata"]["name"]) for each in pods if is_ready(each)]
    if not ready:
        state = deployment.status.state or "new"
        raise Refusal(f"no pod of {deployment.metadata.name} answers: it is {state}")
    return ready[0]


def spoken(way: socket.socket, question: Question) -> Iterator[str]:
    """The answer over a socket that leads to the server."""
    http = HTTPConnection("localhost")
    http.sock = way
    try:
        http.request("POST", "/v1/chat/completions", question.body(), question.headers())
        response = http.getresponse()
        if response.status >= 400:
            raise _error(response.status, response.read())
        yield from pieces(response)
    except (OSError, HTTPException) as error:
        raise Unreachable(f"the server broke off: {error or type(error).__name__}") from error


def pieces(stream: Iterable[bytes]) -> Iterator[str]:
    """The text in the server-sent events of a streamed completion."""
    for line in stream:
        field, _, data = line.decode().strip().partition(": ")
        if field != "data" or data == "[DONE]":
            continue
        event: Object = json.loads(data)
        if "error" in event:
            raise Unreachable(f"the server broke off: {event['error'].get('message')}")
        for choice in event.get("choices", []):
            if text := choice.get("delta", {}).get("content"):
                yield str(text)


def _error(status: int, content: bytes) -> Refusal | Unreachable:
    try:
        told = json.loads(content)
        message = str(told.get("error", told).get("message", told))
    except (ValueError, AttributeError):
        message = content.decode(errors="replace").strip()[:300]
    kind = Refusal if status < 500 else Unreachable
    return kind(f"the server answers {status}: {message}")
