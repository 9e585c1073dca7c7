"""A few requests to the API server, without a client library: this runs before any is installed."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from devcluster.layout import Layout
from devcluster.network import API_SERVER_PORT, NODE_ADDRESS
from devcluster.progress import ClusterError

# An object as the API server sends and takes it; its shape is upstream's, not ours to type.
Manifest = Mapping[str, Any]
_FIELD_MANAGER = "devcluster"


class ApiServer:
    """The cluster's API server, as its administrator."""

    def __init__(self, layout: Layout) -> None:
        certificates = layout.certificates
        self._context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        self._context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")

    def get(self, path: str) -> Any:
        return json.loads(self._request("GET", path))

    def ready(self) -> bool:
        try:
            return self._request("GET", "/readyz") == b"ok"
        except (OSError, http.client.HTTPException, ClusterError):
            return False

    def has(self, path: str) -> bool:
        try:
            self._request("GET", path)
        except ClusterError:
            return False
        return True

    def apply(self, path: str, manifest: Manifest) -> None:
        """Create the object at this path, or make it what the manifest says."""
        query = f"{path}?fieldManager={_FIELD_MANAGER}&force=true"
        self._request("PATCH", query, manifest, "application/apply-patch+yaml")

    def delete(self, path: str) -> None:
        self._request("DELETE", path)

    def _request(
        self, method: str, path: str, body: Manifest | None = None, content_type: str = ""
    ) -> bytes:
        connection = http.client.HTTPSConnection(
            NODE_ADDRESS, API_SERVER_PORT, context=self._context, timeout=10
        )
        headers = {"Content-Type": content_type} if content_type else {}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise ClusterError(f"{method} {path}: {response.status} {content.decode()[:500]}")
        return content


def node_ready(api: ApiServer, name: str) -> bool:
    """Whether the node's kubelet says that it takes pods."""
    try:
        node = api.get(f"/api/v1/nodes/{name}")
    except (OSError, http.client.HTTPException, ClusterError):
        return False
    # A new node is tainted until the node controller has seen it ready.
    taints = [taint["key"] for taint in node["spec"].get("taints", [])]
    if any(key.startswith("node.kubernetes.io/") for key in taints):
        return False
    conditions = node["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def wait_until(what: str, seconds: float, check: Callable[[], bool]) -> None:
    """Ask until the check holds."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(0.1)
