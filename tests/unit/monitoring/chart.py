"""What the chart gives to Prometheus and Grafana."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from examples.demo.chain import ROOT

CHART = ROOT / "charts" / "tunesmith"
ALERTS = CHART / "monitoring" / "alerts.yaml"
DASHBOARD = CHART / "dashboards" / "tunesmith.json"


@dataclass(frozen=True)
class Alert:
    """One rule."""

    name: str
    expression: str


def alerts() -> list[Alert]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [Alert(each["alert"], each["expr"]) for group in groups for each in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def queries() -> list[str]:
    """The dashboard's, as Grafana sends them to Prometheus."""
    targets = [each for panel in dashboard()["panels"] for each in panel.get("targets", [])]
    return [as_sent(each["expr"]) for each in targets]


def as_sent(query: str) -> str:
    return query.replace("$__rate_interval", "5m").replace("$namespace", ".*")
