"""Passes and requests as they are told: in metrics, in traces, and in the fields of log lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import aiohttp
from yarl import URL

from tunesmith.kube.key import CURRENT, Key
from tunesmith.metrics.activity import (
    PASS_ERRORS,
    PASS_SECONDS,
    PASSES,
    REQUEST_SECONDS,
    REQUESTS,
    PassOutcome,
)
from tunesmith.tracing import span

#: In the place of a status code.
UNANSWERED = "Error"

WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class MeasuredPass:
    """How a pass ended, as far as it did not end well."""

    def __init__(self) -> None:
        self.outcome = PassOutcome.DONE
        self.reason = ""

    def failed(self, outcome: PassOutcome, reason: str) -> None:
        self.outcome, self.reason = outcome, reason


@contextmanager
def measured_pass(key: Key) -> Iterator[MeasuredPass]:
    """What happens in the block is a pass about this object."""
    told, token, began = MeasuredPass(), CURRENT.set(key), time.perf_counter()
    where = {"k8s.namespace.name": key.namespace, "tunesmith.name": key.name}
    try:
        with span(f"reconcile {key.kind}", where) as current:
            yield told
            if current:
                current.set_attribute("tunesmith.outcome", told.outcome)
    finally:
        CURRENT.reset(token)
        PASS_SECONDS.labels(key.kind).observe(time.perf_counter() - began)
        PASSES.labels(key.kind, told.outcome).inc()
        if told.reason:
            PASS_ERRORS.labels(key.kind, told.reason).inc()


def measured_requests() -> aiohttp.TraceConfig:
    """For a session that asks the API server: ours, and that of the watches."""
    told = aiohttp.TraceConfig()
    told.on_request_start.append(_begun)
    told.on_request_end.append(_answered)
    told.on_request_exception.append(_unanswered)
    return told


async def _begun(
    _: aiohttp.ClientSession, about: SimpleNamespace, sent: aiohttp.TraceRequestStartParams
) -> None:
    about.began = time.perf_counter()
    about.verb, about.resource = what_is_asked(sent.method, sent.url)
    # Of what belongs to no pass, such as the watches, there are no traces.
    about.block = span(f"{about.verb} {about.resource}", {}) if CURRENT.get() else nullcontext()
    about.span = about.block.__enter__()


async def _answered(
    _: aiohttp.ClientSession, about: SimpleNamespace, got: aiohttp.TraceRequestEndParams
) -> None:
    _count(about, str(got.response.status))


async def _unanswered(
    _: aiohttp.ClientSession, about: SimpleNamespace, __: aiohttp.TraceRequestExceptionParams
) -> None:
    _count(about, UNANSWERED)


def _count(about: SimpleNamespace, code: str) -> None:
    REQUESTS.labels(about.verb, about.resource, code).inc()
    REQUEST_SECONDS.labels(about.verb).observe(time.perf_counter() - about.began)
    if about.span:
        about.span.set_attribute("http.response.status_code", code)
    about.block.__exit__(None, None, None)


def what_is_asked(method: str, url: URL) -> tuple[str, str]:
    """Verb and resource as in RBAC: ("patch", "finetunejobs/status") for example."""
    parts = url.raw_path.split("/")
    # "/api/v1/..." or "/apis/GROUP/VERSION/...", and then perhaps "namespaces/NAMESPACE".
    rest = parts[3:] if parts[1] == "api" else parts[4:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest or parts[1] not in ("api", "apis"):
        return "get", "discovery"
    resource = f"{rest[0]}/{rest[2]}" if len(rest) > 2 else rest[0]
    if method in WRITES:
        return WRITES[method], resource
    if len(rest) > 1:
        return "get", resource
    return ("watch" if "watch=" in url.raw_query_string else "list"), resource
