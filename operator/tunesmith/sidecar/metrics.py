"""The report as Prometheus metrics: what vLLM's own do not tell, per adapter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.api.serving_contract import AdapterState, ReplicaReport, Traffic

#: Name, type, what it says, and where in the counts it is.
TRAFFIC: tuple[tuple[str, str, str, Callable[[Traffic], float]], ...] = (
    (
        "tunesmith_requests_total",
        "counter",
        "Requests by the model that answered.",
        lambda counted: counted.requests,
    ),
    (
        "tunesmith_request_errors_total",
        "counter",
        "Requests that ended with status 500 or above.",
        lambda counted: counted.errors,
    ),
    (
        "tunesmith_requests_in_flight",
        "gauge",
        "Requests being answered.",
        lambda counted: counted.in_flight,
    ),
    (
        "tunesmith_request_seconds_total",
        "counter",
        "Time spent on finished requests.",
        lambda counted: counted.seconds,
    ),
)


def exposition(report: ReplicaReport) -> str:
    """Prometheus' text format."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ReplicaReport) -> Iterator[str]:
    yield "# HELP tunesmith_adapter_ready Whether this replica answers with the adapter (0 or 1)."
    yield "# TYPE tunesmith_adapter_ready gauge"
    for each in report.adapters:
        ready = int(each.state is AdapterState.READY)
        yield f'tunesmith_adapter_ready{{adapter="{each.model}"}} {ready}'
    yield "# HELP tunesmith_adapter_load_seconds From the first sight of an adapter to its answer."
    yield "# TYPE tunesmith_adapter_load_seconds gauge"
    for each in report.adapters:
        if each.seconds is not None:
            yield f'tunesmith_adapter_load_seconds{{adapter="{each.model}"}} {each.seconds:.3f}'
    yield "# HELP tunesmith_vllm_starts_total Starts of vLLM in this pod."
    yield "# TYPE tunesmith_vllm_starts_total counter"
    yield f"tunesmith_vllm_starts_total {report.starts}"
    for name, kind, text, value in TRAFFIC:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        for model, traffic in sorted(report.traffic.items()):
            yield f'{name}{{model="{model}"}} {value(traffic)}'
