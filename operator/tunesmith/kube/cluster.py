"""The one place that talks to the API server: reads, server-side apply, status, events.

Objects go in and out as plain JSON. Reads are live; ``reader`` has those that need no request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import client, config

from tunesmith.api import API_VERSION
from tunesmith.kube.measuring import measured_requests

log = logging.getLogger(__name__)

FIELD_MANAGER = "tunesmith"
#: With a parameter, the client library takes a text for it as it is.
APPLY = "application/apply-patch+yaml; charset=utf-8"
REQUEST_TIMEOUT_SECONDS = 30
PAGE_SIZE = 500
#: Passing trouble of the API server: too many requests, timeouts, a leader election of etcd.
RETRIED_STATUSES = {429, 500, 502, 503, 504}
RETRY_DELAYS_SECONDS = (0.2, 0.5, 1.0, 2.0)
#: The API server understood and will not have it.
REFUSED_STATUSES = {400, 403, 422}
#: Two members of a list with one key, say: the fault of what is applied, which the API server
#: answers with 500 as if it were its own.
NOT_TO_BE_MERGED = "failed to create typed patch object"

Object = dict[str, Any]

KEDA = "keda.sh/v1alpha1"


@dataclass(frozen=True)
class Resource:
    """Where the API server keeps a kind."""

    api_version: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        root = "/api" if "/" not in self.api_version else "/apis"
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}/{self.api_version}{scope}/{self.plural}{tail}"


RESOURCES: dict[str, Resource] = {
    "FineTuneJob": Resource(API_VERSION, "finetunejobs"),
    "EvalRun": Resource(API_VERSION, "evalruns"),
    "AdapterDeployment": Resource(API_VERSION, "adapterdeployments"),
    "TuningPolicy": Resource(API_VERSION, "tuningpolicies"),
    "Namespace": Resource("v1", "namespaces"),
    "Job": Resource("batch/v1", "jobs"),
    "Pod": Resource("v1", "pods"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Deployment": Resource("apps/v1", "deployments"),
    "Service": Resource("v1", "services"),
    "Event": Resource("v1", "events"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "ScaledObject": Resource(KEDA, "scaledobjects"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
}


@dataclass(frozen=True)
class Page:
    """Part of a list, and the version at which the whole list was complete."""

    items: list[Object]
    version: int


class ApiError(Exception):
    """The API server refused a request. ``status`` is the HTTP status, 0 when none came, and
    ``reason`` Kubernetes' own word, if it said one."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"{status or 'no answer'}: {message}")
        self.status = status
        self.message = message
        self.reason = reason

    @property
    def conflict(self) -> bool:
        return self.status == 409

    @property
    def already_exists(self) -> bool:
        """A 409 may also say that several asked at once, of a quota for example."""
        return self.conflict and self.reason == "AlreadyExists"

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def refused(self) -> bool:
        """The same request will be refused again, as its content is what is wrong."""
        return self.status in REFUSED_STATUSES or (
            self.status == 500 and self.message.startswith(NOT_TO_BE_MERGED)
        )

    @property
    def namespace_terminating(self) -> bool:
        return self.status == 403 and "because it is being terminated" in self.message


class Cluster:
    """A connection to one API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls) -> Cluster:
        """Connect with the pod's service account, or with the user's kubeconfig outside a pod."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(settings)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=settings)
        # aiohttp would look into ~/.netrc in a thread of its own before every request.
        settings.client_session_kwargs = {"trust_env": False}
        settings.trace_configs = [measured_requests()]
        api = client.ApiClient(settings)
        api.user_agent = "tunesmith-operator"
        return cls(api)

    async def close(self) -> None:
        await self._api.close()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as it is now, or None."""
        try:
            return await self._request("GET", RESOURCES[kind].path(namespace, name))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def list(
        self, kind: str, namespace: str | None, labels: dict[str, str] | None = None
    ) -> list[Object]:
        """All objects of a kind in a namespace (or in all), chosen by labels."""
        pages = self.pages(kind, namespace, labels)
        return [each async for page in pages for each in page.items]

    async def pages(
        self, kind: str, namespace: str | None, labels: dict[str, str] | None = None
    ) -> AsyncIterator[Page]:
        """The same, page by page, so that a long list need not be held as a whole."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        resource, token = RESOURCES[kind], ""
        while True:
            query = {"labelSelector": selector, "limit": str(PAGE_SIZE), "continue": token}
            page = await self._request("GET", resource.path(namespace), query)
            # Items of a list come without kind and apiVersion.
            kinds = {"apiVersion": resource.api_version, "kind": kind}
            items = [{**kinds, **item} for item in page.get("items", [])]
            yield Page(items, int(page["metadata"]["resourceVersion"]))
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def serves(self, api_version: str) -> bool:
        """Whether somebody installed the kinds of this API."""
        try:
            await self._request("GET", f"/apis/{api_version}")
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    async def create(self, manifest: Object) -> Object | None:
        """Create an object once; None when one of that name is there already."""
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"])
        try:
            return await self._request("POST", path, {"fieldManager": FIELD_MANAGER}, manifest)
        except ApiError as error:
            if error.already_exists:
                return None
            raise

    async def apply(self, manifest: Object) -> Object:
        """Server-side apply: the fields named here become as said here, others stay."""
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._apply(path, manifest)

    async def apply_status(self, source: Object, status: Object) -> Object:
        """Write the whole status of an object, unless it changed since ``source`` was read."""
        metadata = source["metadata"]
        path = RESOURCES[source["kind"]].path(metadata["namespace"], metadata["name"], "status")
        manifest = {
            "apiVersion": source["apiVersion"],
            "kind": source["kind"],
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "status": status,
        }
        return await self._apply(path, manifest)

    async def replace_status(self, source: Object, status: Object) -> None:
        """Write the whole status over one that may not even fit the schema.

        Server-side apply could not: it keeps what others wrote, and understands none of it.
        """
        metadata, before = source["metadata"], source.get("status")
        path = RESOURCES[source["kind"]].path(metadata["namespace"], metadata["name"], "status")
        surplus = dict.fromkeys(before if isinstance(before, dict) else ())
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "status": surplus | status,
        }
        query = {"fieldManager": FIELD_MANAGER}
        await self._request("PATCH", path, query, patch, "application/merge-patch+json")

    async def replace(self, manifest: Object) -> Object:
        """Replace an object; a 409 says that somebody else was faster."""
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, {"fieldManager": FIELD_MANAGER}, manifest)

    async def annotate(
        self, kind: str, namespace: str, name: str, annotations: dict[str, str]
    ) -> None:
        """Add annotations to an object; gone already is fine."""
        await self._merge(kind, namespace, name, {"metadata": {"annotations": annotations}})

    async def suspend(
        self, namespace: str, job_name: str, annotations: dict[str, str], *, suspend: bool
    ) -> Object | None:
        """Stop a Job or let it go on; gone already is fine.

        Nothing else of it is touched: whoever admits Jobs may have changed its pods' template.
        """
        patch = {"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}}
        return await self._merge("Job", namespace, job_name, patch)

    async def _merge(self, kind: str, namespace: str, name: str, patch: Object) -> Object | None:
        path = RESOURCES[kind].path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        try:
            return await self._request("PATCH", path, query, patch, "application/merge-patch+json")
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object and what it owns, in the background; gone already is fine."""
        await self._delete(kind, namespace, name, {})

    async def delete_as_seen(self, source: Object) -> None:
        """Delete an object as it was read: a 409 says that it is another one by now."""
        metadata = source["metadata"]
        as_seen = {each: metadata[each] for each in ("uid", "resourceVersion")}
        whose = source["kind"], metadata["namespace"], metadata["name"]
        await self._delete(*whose, {"preconditions": as_seen})

    async def _delete(self, kind: str, namespace: str, name: str, options: Object) -> None:
        body = {"propagationPolicy": "Background", **options}
        try:
            await self._request("DELETE", RESOURCES[kind].path(namespace, name), {}, body)
        except ApiError as error:
            if not error.not_found:
                raise

    async def _apply(self, path: str, manifest: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", path, query, as_yaml(manifest), APPLY)

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | str | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request, repeated while the API server is only busy.

        Every request of ours may be sent twice: creates carry deterministic names.
        """
        for delay in (*RETRY_DELAYS_SECONDS, None):
            try:
                return await self._send(method, path, query, body, content_type)
            except ApiError as error:
                if error.refused or error.status not in RETRIED_STATUSES or delay is None:
                    raise
                log.info("%s %s answered %s; again in %ss", method, path, error.status, delay)
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: Object | str | None,
        content_type: str,
    ) -> Object:
        present = {key: value for key, value in (query or {}).items() if value}
        target = f"{path}?{urlencode(present)}" if present else path
        _, url, headers, _, _ = await self._api.param_serialize(
            method,
            target,
            header_params={"Accept": "application/json", "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(
                method, url, headers, body=body, _request_timeout=REQUEST_TIMEOUT_SECONDS
            )
            answer = await response.read()
        except aiohttp.ClientError as error:  # a connection that is cut is no OSError there
            raise ApiError(0, f"{type(error).__name__}: {error}") from error
        if response.status >= 400:
            text = answer.decode()
            raise ApiError(response.status, message_of(text), reason_of(text))
        return cast(Object, orjson.loads(answer))


def as_yaml(manifest: Object) -> str:
    """JSON that is YAML, too, as which the API server reads what is applied.

    YAML knows no pairs of surrogates: a status with an emoji in it, escaped as JSON does, would be
    refused. What may not stand in YAML as it is has one code unit, and is escaped.
    """
    text = json.dumps(manifest, ensure_ascii=False)
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def reason_of(text: str) -> str:
    """The word in a metav1.Status, or nothing."""
    try:
        return str(json.loads(text).get("reason", ""))
    except (ValueError, AttributeError):
        return ""


def message_of(text: str) -> str:
    """The sentence in a metav1.Status, or the text itself.

    Several causes come in another order each time, and a status that repeats them would be written
    again and again.
    """
    try:
        status = json.loads(text)
        message = str(status["message"])
        causes = {
            f"{each.get('field')}: {each.get('message')}"
            for each in status.get("details", {}).get("causes", [])
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return text[:500]
    if len(causes) < 2:
        return message
    return f"{message.partition(': [')[0]}: {'; '.join(sorted(causes))}"
