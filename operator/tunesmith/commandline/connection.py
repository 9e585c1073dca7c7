"""The one place that talks to the API server: as the user of the kubeconfig, one request at a time.

Objects go in and out as plain JSON. The operator's own client works on an event loop and repeats
its requests; a person waits for one answer and presses the key again.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from tunesmith.api import API_VERSION
from tunesmith.commandline.outcome import Refusal, Unreachable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]

FIELD_MANAGER = "kubectl-tunesmith"
CONNECT_SECONDS, READ_SECONDS = 5, 30

#: Before the sentence of a rule of the schema, and before that of an admission policy.
INVALID_VALUE = re.compile(r'^Invalid value: (?:"(?:[^"\\]|\\.)*"|[^\s:]+): ')
DENIED_BY = re.compile(r"^ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request: ")

APIS = {
    "FineTuneJob": (API_VERSION, "finetunejobs"),
    "EvalRun": (API_VERSION, "evalruns"),
    "AdapterDeployment": (API_VERSION, "adapterdeployments"),
    "Job": ("batch/v1", "jobs"),
    "Pod": ("v1", "pods"),
    "Secret": ("v1", "secrets"),
}


class ApiError(Refusal):
    """The API server said no. ``causes`` are its sentences, one for each mistake."""

    def __init__(self, status: int, message: str, causes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.causes = causes or (message,)


@dataclass(frozen=True)
class Place:
    """Which cluster and which namespace, as the options say; unset is what the kubeconfig says."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def connect(self) -> Connection:
        """Raises Unreachable without a kubeconfig; nothing is sent yet."""
        from kubernetes import client, config

        settings = client.Configuration()
        # urllib3 would try three times, and a person would wonder.
        settings.retries = False
        try:
            config.load_kube_config(self.kubeconfig, self.context, client_configuration=settings)
            namespace = self.namespace or self._namespace_of_context()
        except config.ConfigException as error:
            raise Unreachable(f"no cluster is known: {str(error).rstrip('.')}") from error
        api = client.ApiClient(settings)
        api.user_agent = FIELD_MANAGER
        return Connection(api, namespace)

    def _namespace_of_context(self) -> str:
        from kubernetes import config

        contexts, active = config.list_kube_config_contexts(self.kubeconfig)
        named = (each for each in contexts if each["name"] == self.context)
        return str(next(named, active)["context"].get("namespace") or "default")


class Connection:
    """One API server, one namespace, one user."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    def find(self, kind: str, name: str) -> Object | None:
        """The object as it is now, or None."""
        try:
            return self._json("GET", self._path(kind, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def get(self, kind: str, name: str) -> Object:
        """The object as it is now. Raises Refusal where there is none."""
        found = self.find(kind, name)
        if found is None:
            raise Refusal(f"there is no {kind} {name} in the namespace {self.namespace}")
        return found

    def list(self, kind: str, labels: dict[str, str] | None = None) -> list[Object]:
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        query = {"labelSelector": selector} if selector else {}
        return cast(list[Object], self._json("GET", self._path(kind), query)["items"])

    def who_am_i(self) -> str:
        """The user's name, as the API server and its policies see it."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        return str(self._json("POST", path, body=review)["status"]["userInfo"]["username"])

    def try_to_apply(self, manifest: Object) -> None:
        """All that admission says of an object, without keeping it. Raises ApiError."""
        metadata = manifest["metadata"]
        query = {
            "dryRun": "All",
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
            "force": "true",
        }
        path = self._path(manifest["kind"], metadata["name"], metadata.get("namespace"))
        self._json("PATCH", path, query, manifest, "application/apply-patch+yaml")

    def annotate(self, kind: str, name: str, annotations: dict[str, str]) -> None:
        patch = {"metadata": {"annotations": annotations}}
        query = {"fieldManager": FIELD_MANAGER}
        path = self._path(kind, name)
        self._json("PATCH", path, query, patch, "application/merge-patch+json")

    def create(self, manifest: Object) -> Object:
        return self._json("POST", self._path(manifest["kind"]), body=manifest)

    def delete(self, kind: str, name: str) -> None:
        query = {"gracePeriodSeconds": "0"}
        self._json("DELETE", self._path(kind, name), query)

    def logs(self, pod: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """What the main container printed, as it comes."""
        query = {"container": "main", "follow": str(follow).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        timeout = (CONNECT_SECONDS, None if follow else READ_SECONDS)
        response = self._send("GET", f"{self._path('Pod', pod)}/log", query, timeout=timeout)
        yield from response.response.stream(None, decode_content=True)

    def forwarded(self, pod: str, port: int) -> socket.socket:
        """A socket that leads to a port of a pod."""
        from kubernetes.client import CoreV1Api
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream import portforward

        core = CoreV1Api(self._api)
        try:
            forward = portforward(
                core.connect_get_namespaced_pod_portforward,
                pod,
                self.namespace,
                ports=str(port),
            )
        except ApiException as error:
            raise Unreachable(f"no way leads to pod {pod}: {error.reason}") from error
        return cast(socket.socket, forward.socket(port))

    def _path(self, kind: str, name: str = "", namespace: str | None = None) -> str:
        version, plural = APIS[kind]
        root = "/apis" if "/" in version else "/api"
        path = f"{root}/{version}/namespaces/{namespace or self.namespace}/{plural}"
        return f"{path}/{name}" if name else path

    def _json(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        response = self._send(method, path, query, body, content_type)
        return cast(Object, json.loads(response.read()))

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        timeout: tuple[int, int | None] = (CONNECT_SECONDS, READ_SECONDS),
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        _, url, headers, _, _ = self._api.param_serialize(
            method,
            f"{path}?{urlencode(query)}" if query else path,
            header_params={"Accept": "application/json", "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        try:
            response = self._api.call_api(method, url, headers, body=body, _request_timeout=timeout)
        except (HTTPError, ApiException) as error:
            raise Unreachable(f"the API server does not answer: {error}") from error
        if response.status >= 400:
            raise refused(response.status, response.read())
        return response


def refused(status: int, content: bytes) -> Refusal | Unreachable:
    """The error for an answer of the API server that is no success."""
    try:
        told = json.loads(content)
        message = str(told["message"])
        details = told.get("details") or {}
    except (ValueError, KeyError, TypeError):
        message, details = content.decode(errors="replace")[:500] or f"HTTP {status}", {}
        if status == 404:
            message = f"the API server does not know {API_VERSION}: is Tunesmith installed there?"
    if status == 401 or status >= 500:
        return Unreachable(f"the API server answered {status}: {message}")
    causes = tuple(_sentence(each) for each in details.get("causes") or ())
    return ApiError(status, message, causes)


def _sentence(cause: Object) -> str:
    """``Invalid value: VALUE: SENTENCE`` is how rules are reported: the sentence is ours."""
    message = DENIED_BY.sub("", INVALID_VALUE.sub("", str(cause.get("message", ""))))
    field = str(cause.get("field", "")).removeprefix("<nil>")
    return f"{field}: {message}" if field else message
