"""The generated CRDs are structural, complete and fresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.crd import DEFINITIONS, Definition, custom_resource_definition, generated_files

ROOT = Path(__file__).parents[3]
FORBIDDEN = {"$ref", "$defs", "anyOf", "allOf", "oneOf", "const", "title", "exclusiveMinimum"}


every_definition = pytest.mark.parametrize(
    "definition", DEFINITIONS, ids=[each.plural for each in DEFINITIONS]
)


def schema(definition: Definition) -> dict[str, Any]:
    (version,) = custom_resource_definition(definition)["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(node.get(keyword), dict):
            yield from walk(node[keyword], f"{path}[]")


@every_definition
def test_every_field_explains_itself(definition: Definition) -> None:
    silent = [
        path
        for path, node in walk(schema(definition))
        if path not in ("", ".metadata") and not path.endswith("[]") and "description" not in node
    ]
    assert silent == []


@every_definition
def test_nothing_is_in_the_schema_that_the_api_server_refuses(definition: Definition) -> None:
    assert [path for path, node in walk(schema(definition)) if FORBIDDEN & node.keys()] == []


@every_definition
def test_every_list_map_and_string_of_a_spec_is_bounded(definition: Definition) -> None:
    """CEL rules are only admitted when their cost is."""
    unbounded = []
    for path, node in walk(schema(definition)["properties"]["spec"]):
        bound = {"string": "maxLength", "array": "maxItems"}.get(node.get("type", ""))
        if "additionalProperties" in node:
            bound = "maxProperties"
        if bound and "enum" not in node and bound not in node:
            unbounded.append(path)
    assert unbounded == []


def test_the_rule_that_a_job_does_not_change_reads_no_member_that_may_be_missing() -> None:
    spec = schema(DEFINITIONS[0])["properties"]["spec"]
    (rule,) = [
        each["rule"]
        for each in spec["x-kubernetes-validations"]
        if "cannot be changed" in each["message"]
    ]
    for name, node in spec["properties"].items():
        always_there = name in spec["required"] or "default" in node
        if name not in ("suspend", "ttlSecondsAfterFinished"):
            assert f"self.{name} == oldSelf.{name}" in rule
            assert (f"has(oldSelf.{name})" in rule) is not always_there


def test_the_generated_files_are_fresh() -> None:
    stale = [path.name for path, text in generated_files(ROOT).items() if path.read_text() != text]
    assert stale == []
