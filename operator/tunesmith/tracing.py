"""OpenTelemetry traces: a span for each pass, and one for each request within it.

Off, nothing of OpenTelemetry is imported and a span costs one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from tunesmith import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

Attributes = Mapping[str, str]

_tracer: Tracer | None = None


@contextmanager
def traced(endpoint: str) -> Iterator[None]:
    """While the block lasts, spans are sent there in the background, by OTLP over HTTP; OTEL_*
    variables say the rest. Raises SystemExit when the packages for it are not installed."""
    if not endpoint:
        yield
        return
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SystemExit(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is missing: install "
            "tunesmith[operator,tracing], or unset it"
        ) from error
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
    who = {SERVICE_NAME: "tunesmith-operator", SERVICE_VERSION: __version__}
    provider = TracerProvider(resource=Resource.create(who))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("tunesmith", __version__)
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def span(name: str, attributes: Attributes) -> AbstractContextManager[Span | None]:
    """The time that the block takes, as a part of the span around it."""
    if _tracer is None:
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes)
