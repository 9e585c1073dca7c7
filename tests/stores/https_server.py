"""Files behind https on this machine, from a server that can be told to misbehave."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.stores.certificates import Certificate
from tests.stores.servers import LOCALHOST


@dataclass
class Files:
    """What is served, and how. ``requests`` has the headers of each request, in order."""

    url: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    #: Statuses of the next answers, before any file is served.
    statuses: list[int] = field(default_factory=list)
    #: The next answers end after so many bytes.
    cut_after: list[int] = field(default_factory=list)
    resumable: bool = True
    authorization: str | None = None
    requests: list[dict[str, str]] = field(default_factory=list)


class FileServer(ThreadingHTTPServer):
    """Clients that go away in the middle are what some tests are about."""

    def __init__(self, files: Files) -> None:
        super().__init__((LOCALHOST, 0), Handler)
        self.files = files

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        files = self.server.files
        files.requests.append(dict(self.headers))
        if files.statuses:
            self.answer(files.statuses.pop(0))
        elif self.path in files.redirects:
            self.answer(302, Location=files.redirects[self.path])
        elif files.authorization not in (None, self.headers.get("Authorization")):
            self.answer(401)
        elif self.path not in files.contents:
            self.answer(404)
        else:
            self.serve(files, files.contents[self.path])

    def serve(self, files: Files, content: bytes) -> None:
        start = 0
        if files.resumable and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if files.resumable:
            self.send_header("ETag", '"one"')
        self.end_headers()
        stop = start + files.cut_after.pop(0) if files.cut_after else len(content)
        self.wfile.write(content[start:stop])

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def https_server(certificate: Certificate) -> Iterator[Files]:
    files = Files()
    server = FileServer(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path, certificate.key_path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    files.url = f"https://{LOCALHOST}:{server.server_port}"
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
