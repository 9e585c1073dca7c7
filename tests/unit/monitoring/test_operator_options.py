"""The chart's options for log lines and traces, as they reach the operator."""

from __future__ import annotations

from typing import Any

from tunesmith.settings import LogFormat, settings_from

from tests.gitops.argocd import rendered

COLLECTOR = "http://collector.observability:4318"


def environment(**values: Any) -> dict[str, str]:
    (operator,) = [each for each in rendered(**values) if each["kind"] == "Deployment"]
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_out_of_the_box_lines_are_json_and_nothing_is_traced() -> None:
    given = environment()
    chosen = settings_from(given)
    assert (chosen.log_format, chosen.tracing_endpoint) == (LogFormat.JSON, "")
    assert not [name for name in given if name.startswith("OTEL_")]


def test_an_endpoint_and_a_share_reach_the_operator_under_opentelemetrys_own_names() -> None:
    given = environment(
        operator__tracing__endpoint=COLLECTOR,
        operator__tracing__sampleRatio="0.1",
        operator__logFormat="text",
    )
    chosen = settings_from(given)
    assert (chosen.log_format, chosen.tracing_endpoint) == (LogFormat.TEXT, COLLECTOR)
    assert given["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
    assert given["OTEL_TRACES_SAMPLER_ARG"] == "0.1"
