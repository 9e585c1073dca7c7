"""Every value is explained where it is set, and a mistyped one is refused before it does harm."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from examples.demo.kubectl import Object
from tests.chart.rendering import CHART, HelmError, lint, rendered

VALUES = (CHART / "values.yaml").read_text()
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
EVERYTHING: Object = {
    "images": {"registry": "mirror.example.com", "pullSecrets": [{"name": "mirror"}]},
    "huggingFace": {"endpoint": "https://hub.example.com", "cache": "pvc://hub/models"},
    "serving": {"prometheusAddress": "http://prometheus:9090", "podMonitor": True},
    "argocd": {"healthChecks": True},
    "networkPolicy": {"enabled": True, "namespaces": ["support"]},
    "operator": {"namespaces": ["support", "search"], "priorityClassName": "platform"},
}


def keys(
    node: yaml.Node, schema: Object, path: str = ""
) -> Iterator[tuple[str, yaml.Node, Object | None]]:
    """Every key down to where the schema has no names any more: its path, itself, its schema."""
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        entry = schema.get("properties", {}).get(key.value)
        where = f"{path}.{key.value}".lstrip(".")
        yield where, key, entry
        if isinstance(value, yaml.MappingNode) and entry and "properties" in entry:
            yield from keys(value, entry, where)


def all_keys() -> list[tuple[str, yaml.Node, Object | None]]:
    values = yaml.compose(VALUES, Loader=yaml.SafeLoader)
    assert values is not None
    return list(keys(values, SCHEMA))


def test_every_value_has_a_description_and_a_type_in_the_schema() -> None:
    lacking = [
        path
        for path, _, entry in all_keys()
        if not entry or not entry.get("description") or "type" not in entry
    ]
    assert lacking == []


def test_every_value_has_a_comment() -> None:
    """Above it, unless it is a name for what follows."""
    lines = VALUES.splitlines()
    uncommented = [
        path
        for path, key, entry in all_keys()
        if "properties" not in (entry or {})
        and not path.startswith(("operator.resources.", "images.operator", "images.trainer"))
        and not lines[key.start_mark.line - 1].strip().startswith("#")
    ]
    assert uncommented == []


def test_the_schema_knows_no_value_that_the_chart_has_not() -> None:
    def paths(schema: Object, path: str = "") -> Iterator[str]:
        for name, entry in schema.get("properties", {}).items():
            yield f"{path}.{name}".lstrip(".")
            yield from paths(entry, f"{path}.{name}")

    known = set(paths(SCHEMA)) - {path for path, _, _ in all_keys()}
    # A chart that contains this one may say something to all its charts.
    assert known == {"global"}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_has_nothing_to_say_against_the_chart(values: Object) -> None:
    assert "0 chart(s) failed" in lint(values)
    assert rendered(values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"operater": {}}, "additional properties 'operater' not allowed"),
        ({"operator": {"replica": 2}}, "additional properties 'replica' not allowed"),
        ({"operator": {"replicas": "two"}}, "got string, want integer"),
        ({"operator": {"namespaces": "team"}}, "got string, want array"),
        ({"operator": {"namespaces": ["Team One"]}}, "'/operator/namespaces/0'"),
        ({"images": {"pullPolicy": "Sometimes"}}, "must be one of 'Always', 'IfNotPresent'"),
        ({"images": {"pullSecrets": ["mirror"]}}, "got string, want object"),
        ({"images": {"operator": "repo@sha256:12"}}, "'/images/operator'"),
        ({"evaluation": {"generalKnowledge": {"size": False}}}, "got boolean, want string"),
        ({"huggingFace": {"cache": "/mnt/hub"}}, "'/huggingFace/cache'"),
        ({"networkPolicy": {"reaches": {"s4": []}}}, "additional properties 's4' not allowed"),
        ({"networkPolicy": {"clients": [{"pods": {}}]}}, "additional properties 'pods'"),
    ],
)
def test_a_mistyped_value_is_refused(values: Object, told: str) -> None:
    with pytest.raises(HelmError, match=told):
        rendered(values)
