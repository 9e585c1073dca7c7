"""A real OCI registry, open, with a password, or with tokens from a server of its own."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.stores.certificates import Certificate
from tests.stores.servers import LOCALHOST, free_port, running

USERNAME = "trainer"
PASSWORD = "the-password"
#: The same, in the only form that the registry reads.
HTPASSWD = f"{USERNAME}:$2b$04$UqFbVrPOSrT6.cOyeWBja.2PGuex.5/2pyM172nPgb3IbQGvaDkBu\n"
SERVICE = "registry.test"


@dataclass(frozen=True)
class RunningRegistry:
    host: str
    folder: Path

    def reference(self, repository: str, tag: str = "v1") -> str:
        return f"{self.host}/{repository}:{tag}"


@contextmanager
def registry(folder: Path, **authentication: Any) -> Iterator[RunningRegistry]:
    port = free_port()
    configuration = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"{LOCALHOST}:{port}", "secret": "for tests"},
        **({"auth": authentication} if authentication else {}),
    }
    path = folder / "registry.json"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    with running(["docker-registry", "serve", str(path)], port):
        yield RunningRegistry(f"{LOCALHOST}:{port}", folder)


@contextmanager
def password_registry(folder: Path) -> Iterator[RunningRegistry]:
    (folder / "htpasswd").write_text(HTPASSWD)
    with registry(folder, htpasswd={"realm": "test", "path": str(folder / "htpasswd")}) as found:
        yield found


@contextmanager
def token_registry(folder: Path, certificate: Certificate) -> Iterator[RunningRegistry]:
    """A registry that sends its clients to a token server, which wants a password."""

    class TokenServer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {expected}":
                self.send_response(401)
                self.end_headers()
                return
            scope = parse_qs(urlsplit(self.path).query)["scope"][0]
            body = json.dumps({"token": signed(scope, certificate)}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer((LOCALHOST, 0), TokenServer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    token = {
        "realm": f"http://{LOCALHOST}:{server.server_port}/token",
        "service": SERVICE,
        "issuer": SERVICE,
        "rootcertbundle": str(certificate.path),
    }
    try:
        with registry(folder, token=token) as found:
            yield found
    finally:
        server.shutdown()
        server.server_close()


def signed(scope: str, certificate: Certificate) -> str:
    """A token for what is asked, as the registry checks it."""
    import jwt

    kind, name, actions = scope.split(":")
    now = int(time.time())
    claims = {
        "iss": SERVICE,
        "sub": USERNAME,
        "aud": SERVICE,
        "exp": now + 300,
        "nbf": now - 10,
        "iat": now,
        "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
    }
    headers = {"x5c": [certificate.der_base64]}
    return str(jwt.encode(claims, certificate.key_pem, algorithm="RS256", headers=headers))
