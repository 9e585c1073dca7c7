"""The dashboard: what Grafana's schema and Prometheus' own parser make of it."""

from __future__ import annotations

import json
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.gitops.argocd import rendered
from tests.unit.monitoring.chart import DASHBOARD, dashboard, queries

COLUMNS = 24


def test_grafanas_schema_knows_every_field_of_it() -> None:
    raw = dashboard()
    understood = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(raw)))
    assert list(unknown(raw, understood)) == []


def unknown(written: Any, understood: Any, place: str = "") -> list[str]:
    """Where something was written that the schema has no place for, or that it reads otherwise."""
    if isinstance(written, dict) and isinstance(understood, dict):
        missing = [f"{place}/{key}" for key in written if key not in understood]
        both = [key for key in written if key in understood]
        return missing + [
            each
            for key in both
            for each in unknown(written[key], understood[key], f"{place}/{key}")
        ]
    if isinstance(written, list) and isinstance(understood, list):
        pairs = enumerate(zip(written, understood, strict=True))
        return [each for n, (a, b) in pairs for each in unknown(a, b, f"{place}/{n}")]
    return [] if written == understood else [place]


def test_no_two_panels_cover_each_other_and_none_is_named_twice() -> None:
    panels = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS
    for one, other in combinations([each["gridPos"] for each in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries())]
    assert len(rules) > 30
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_comes_as_a_config_map_that_grafanas_sidecar_finds() -> None:
    def dashboards(**values: Any) -> list[dict[str, Any]]:
        found = rendered(**values)
        return [each for each in found if "grafana_dashboard" in each["metadata"].get("labels", {})]

    assert dashboards() == []
    (config_map,) = dashboards(monitoring__dashboard="true")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"][DASHBOARD.name]) == dashboard()
