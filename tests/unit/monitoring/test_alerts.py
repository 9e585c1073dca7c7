"""The alerts, judged by promtool: histories in ``histories.yaml`` say when each fires."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gitops.argocd import rendered
from tests.unit.monitoring.chart import ALERTS, alerts
from tests.unit.operator.given import finetunejob, prepared
from tests.unit.operator.plans import created_job, planned, seen
from tests.unit.operator.serving_given import ready_job, settled

HISTORIES = Path(__file__).with_name("histories.yaml")
MONITORING = "monitoring.coreos.com/v1"


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", ALERTS)


def test_they_fire_when_they_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", HISTORIES)


def test_there_is_a_history_in_which_each_of_them_fires_and_one_in_which_it_does_not() -> None:
    expected: dict[str, set[bool]] = {}
    for history in yaml.safe_load(HISTORIES.read_text())["tests"]:
        for each in history["alert_rule_test"]:
            expected.setdefault(each["alertname"], set()).add(bool(each.get("exp_alerts")))
    assert expected == {each.name: {True, False} for each in alerts()}


def monitoring_objects(**values: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (each["kind"], each["metadata"]["name"]): each
        for each in rendered(**values)
        if each["apiVersion"] == MONITORING
    }


def test_without_the_options_nothing_needs_the_prometheus_operator() -> None:
    assert monitoring_objects() == {}


def test_the_chart_brings_exactly_these_rules() -> None:
    found = monitoring_objects(monitoring__alerts="true", monitoring__labels__release="prometheus")
    (rule,) = found.values()
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_pod_monitors_choose_pods_that_have_the_ports_they_name() -> None:
    trains = finetunejob(status=prepared(), evaluation={"preflight": "Skip"})
    job = created_job(planned(seen(trains)))["spec"]["template"]
    serving = settled(ready_job()).template()
    (operator,) = [each for each in rendered() if each["kind"] == "Deployment"]
    pods = {"jobs": job, "serving": serving, "operator": operator["spec"]["template"]}
    found = monitoring_objects(monitoring__podMonitors="true")
    assert {name for _, name in found} == {f"tunesmith-{each}" for each in pods}
    for name, pod in pods.items():
        monitor = found["PodMonitor", f"tunesmith-{name}"]["spec"]
        labels, selector = pod["metadata"]["labels"], monitor["selector"]
        assert selector.get("matchLabels", {}).items() <= labels.items()
        assert {each["key"] for each in selector.get("matchExpressions", [])} <= set(labels)
        endpoints = {each["port"] for each in monitor["podMetricsEndpoints"]}
        assert endpoints <= set(ports(pod["spec"])), name


def ports(pod: dict[str, Any]) -> list[str]:
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    return [port["name"] for each in containers for port in each.get("ports", [])]


@pytest.mark.parametrize("option", ["serving__podMonitor", "monitoring__podMonitors"])
def test_serving_pods_are_scraped_with_either_option(option: str) -> None:
    assert ("PodMonitor", "tunesmith-serving") in monitoring_objects(**{option: "true"})
