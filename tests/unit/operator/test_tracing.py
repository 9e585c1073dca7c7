"""Traces, as a receiver of OTLP gets them: a span for each pass, with its requests in it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tunesmith.kube.key import Key
from tunesmith.kube.measuring import measured_requests
from tunesmith.kube.workqueue import Pass, PassFailed
from tunesmith.tracing import span, traced

from tests.unit.operator.passes import one_pass

JOB = Key("FineTuneJob", "team", "triage")


@dataclass
class Collector:
    """What an OpenTelemetry collector gets."""

    endpoint: str
    services: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector("")

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                found.services.add(named["service.name"])
                for scope in resource.scope_spans:
                    found.spans += scope.spans
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            """As which any API server may be asked."""
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads them."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


async def asks_for_a_pod(address: str, error: Exception | None = None) -> None:
    """A pass that does so."""

    async def reconcile(_: Key) -> Pass:
        async with aiohttp.ClientSession(trace_configs=[measured_requests()]) as session:
            await session.get(f"{address}/api/v1/namespaces/team/pods/one")
        if error:
            raise error
        return Pass()

    await one_pass(JOB, reconcile)


def attributes(told: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in told.attributes}


async def test_a_pass_is_a_span_with_its_requests_as_children(collector: Collector) -> None:
    with traced(collector.endpoint):
        await asks_for_a_pod(collector.endpoint, PassFailed("403: no", "Http403"))
    by_name = {each.name: each for each in collector.spans}
    assert set(by_name) == {"reconcile FineTuneJob", "get pods"}
    whole, request = by_name["reconcile FineTuneJob"], by_name["get pods"]
    assert request.parent_span_id == whole.span_id
    assert request.trace_id == whole.trace_id
    assert attributes(whole) == {
        "k8s.namespace.name": "team", "tunesmith.name": "triage", "tunesmith.outcome": "Refused"
    }  # fmt: skip
    assert attributes(request) == {"http.response.status_code": "404"}
    assert collector.services == {"tunesmith-operator"}


async def test_a_share_of_the_passes_is_traced_whole_or_not_at_all(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    with traced(collector.endpoint):
        for _ in range(20):
            await asks_for_a_pod(collector.endpoint)
    names = [each.name for each in collector.spans]
    assert 0 < len(names) < 40
    assert names.count("reconcile FineTuneJob") == names.count("get pods")


async def test_what_belongs_to_no_pass_is_not_traced(collector: Collector) -> None:
    with traced(collector.endpoint):
        async with aiohttp.ClientSession(trace_configs=[measured_requests()]) as session:
            await session.get(f"{collector.endpoint}/api/v1/pods?watch=true")
    assert collector.spans == []


async def test_a_collector_that_is_gone_stops_no_pass(unused_tcp_port: int) -> None:
    with traced(f"http://127.0.0.1:{unused_tcp_port}"), span("alone", {}) as current:
        assert current is not None
        assert current.is_recording()


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    program = (
        "import sys, tunesmith.main; from tunesmith.tracing import span, traced\n"
        "with traced(''), span('pass', {}) as current: assert current is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_endpoint_without_the_packages_is_refused_with_what_to_install() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from tunesmith.tracing import traced\n"
        "with traced('http://collector:4318'): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "tunesmith[operator,tracing]" in done.stderr
