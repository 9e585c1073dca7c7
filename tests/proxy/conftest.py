"""The real nginx with the real configuration, on free ports and in a folder of its own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tunesmith

SOURCES = Path(tunesmith.__file__).parent / "adapterdeployment" / "proxy"
USER_OF_PODS = 65532
PATIENCE_SECONDS = 5.0

Json = dict[str, Any]


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Received:
    """One request as the upstream saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def model(self) -> str:
        name: str = json.loads(self.body)["model"]
        return name


class Handler(BaseHTTPRequestHandler):
    """Records the request, then answers as the test says."""

    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(self.command, self.path, headers, self.rfile.read(length))
        self.server.received.append(received)
        try:
            self.server.answer(self)
        except OSError:
            self.server.abandoned.set()

    do_POST = do_GET  # noqa: N815

    def whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, text: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Silent."""


class Upstream(ThreadingHTTPServer):
    """Stands in for vLLM to show what the proxy sends. The end-to-end tests use the real vLLM."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[Received] = []
        #: Somebody left before the answer was complete.
        self.abandoned = threading.Event()
        self.answer: Callable[[Handler], None] = lambda handler: handler.whole(200, b"{}")

    @property
    def port(self) -> int:
        return self.server_port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that leave are part of the tests."""


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    # The interval is how long shutdown takes at most.
    thread = threading.Thread(target=upstream.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        upstream.shutdown()
        upstream.server_close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        content: Json = json.loads(self.body)
        return content

    @property
    def error(self) -> tuple[str, str, int]:
        """Message, type and code, and nothing else."""
        assert self.headers["content-type"] == "application/json"
        assert set(self.json) == {"error"}
        error = self.json["error"]
        assert set(error) == {"message", "type", "code"}
        assert error["code"] == self.status
        return error["message"], error["type"], error["code"]


def ask_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, names, response.read())


def ask_at(port: int, method: str, path: str, body: bytes | None = None, key: str = "") -> Answer:
    connection = connect(port)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return ask_on(connection, method, path, body, headers)
    finally:
        connection.close()


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)


def request_text(body: bytes) -> bytes:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def routing_table(routes: dict[str, dict[str, int]], **rest: Any) -> Json:
    """A table as the sidecar makes it, from name → version → weight."""
    listed = {
        name: [{"model": model, "weight": weight} for model, weight in targets.items()]
        for name, targets in routes.items()
    }
    table: Json = {"digest": "d1", "base": "base", "grants": None, "base_address": None}
    return {**table, "routes": listed, **rest}


ROUTES = {"support": {"support@1": 100}, "support@1": {"support@1": 100}, "base": {"base": 100}}
ASK_SUPPORT = b'{"model": "support"}'


@dataclass
class Proxy:
    """A running nginx."""

    folder: Path
    upstream: Upstream
    door: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)

    @property
    def keys(self) -> Path:
        return self.folder / "etc" / "keys"

    @property
    def leaving(self) -> Path:
        return self.folder / "run" / "leaving"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, method: str, path: str, body: bytes | None = None, key: str = "") -> Answer:
        return ask_at(self.door, method, path, body, key)

    def complete(self, body: Json | bytes, key: str = "") -> Answer:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", "/v1/chat/completions", text, key)

    def put(self, table: Json | bytes) -> Answer:
        text = table if isinstance(table, bytes) else json.dumps(table).encode()
        return ask_at(self.control, "PUT", "/routes", text)

    def route(self, routes: dict[str, dict[str, int]], **rest: Any) -> None:
        assert self.put(routing_table(routes, **rest)).status == 200

    def state(self) -> Json:
        return ask_at(self.control, "GET", "/state").json

    def traffic(self, model: str) -> Json:
        traffic: Json = self.state()["traffic"].get(model, {})
        return traffic

    def models(self, key: str = "") -> list[str]:
        return [each["id"] for each in self.ask("GET", "/v1/models", key=key).json["data"]]

    def write_configuration(self) -> None:
        """The shipped files, with other folders and ports."""
        replacements = {
            "/etc/tunesmith/serving": str(self.folder / "etc"),
            "/etc/tunesmith/keys": str(self.keys),
            "/run/tunesmith": str(self.folder / "run"),
            "/tmp/nginx": str(self.folder / "tmp" / "nginx"),
            "0.0.0.0:8000": f"127.0.0.1:{self.door}",
            "127.0.0.1:8001": f"127.0.0.1:{self.upstream.port}",
            "127.0.0.1:8002": f"127.0.0.1:{self.control}",
            "0.0.0.0:9402": f"127.0.0.1:{self.metrics}",
            "LOOKS_AT_KEYS = 5": "LOOKS_AT_KEYS = 0.2",
        }
        for name in ("nginx.conf", "route.lua"):
            text = (SOURCES / name).read_text()
            for shipped, here in replacements.items():
                text = text.replace(shipped, here)
            (self.folder / "etc" / name).write_text(text)

    @contextmanager
    def running(self) -> Iterator[None]:
        for name in ("etc", "run", "tmp"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, *_user_and_group())
        self.write_configuration()
        command = ["nginx", "-c", str(self.folder / "etc" / "nginx.conf"), "-e", "stderr"]
        user, group = _user_and_group()
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stderr=log, user=user, group=group, extra_groups=_no_more_groups()
            )
        try:
            until(self._answers)
            yield
        finally:
            self.process.terminate()
            self.process.wait(PATIENCE_SECONDS)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return ask_at(self.control, "GET", "/state").status == 200
        except OSError:
            return False

    @contextmanager
    def only_worker(self, number: int) -> Iterator[None]:
        """The other worker stands still meanwhile."""
        master = self.process.pid
        workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        assert len(workers) == 2
        other = int(workers[1 - number])
        os.kill(other, signal.SIGSTOP)
        try:
            until(lambda: _stands_still(other))
            yield
        finally:
            os.kill(other, signal.SIGCONT)


def give_keys(proxy: Proxy, keys: dict[str, str]) -> None:
    """As Kubernetes mounts a Secret: files are links through ..data to a folder with a date."""
    dated = proxy.keys / "..2026_01_01"
    dated.mkdir(parents=True)
    (proxy.keys / "..data").symlink_to(dated.name)
    for client, key in keys.items():
        (dated / client).write_text(key)
        (proxy.keys / client).symlink_to(Path("..data") / client)
    until_both_workers_looked()


def until_both_workers_looked() -> None:
    time.sleep(0.25)


def whole(status: int, body: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.whole(status, body)


def _user_and_group() -> tuple[int, int]:
    """That of the pods, where the tests may become it."""
    if os.getuid() == 0:
        return USER_OF_PODS, USER_OF_PODS
    return os.getuid(), os.getgid()


def _stands_still(process: int) -> bool:
    # PID (NAME) STATE ...
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _no_more_groups() -> list[int] | None:
    return [] if os.getuid() == 0 else None


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream() as found:
        yield found


@pytest.fixture
def fresh_proxy(upstream: Upstream) -> Iterator[Proxy]:
    """A proxy that no sidecar has told anything yet."""
    with ExitStack() as stack:
        # Not tmp_path: that folder is closed to the user of the pods.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proxy-")))
        folder.chmod(0o755)
        proxy = Proxy(folder, upstream)
        stack.enter_context(proxy.running())
        yield proxy


@pytest.fixture
def proxy(fresh_proxy: Proxy) -> Proxy:
    fresh_proxy.route(ROUTES)
    return fresh_proxy
