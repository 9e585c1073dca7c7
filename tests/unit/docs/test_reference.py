"""The reference tells of all that the CRDs say, and is fresh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tunesmith.api.crd import DEFINITIONS, Definition, custom_resource_definition
from tunesmith.api.reference import generated_files

from tests.unit.docs.pages import ROOT, page

every_definition = pytest.mark.parametrize(
    "definition", DEFINITIONS, ids=[each.plural for each in DEFINITIONS]
)


def nodes(definition: Definition) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of the CRD's schema, by its name; what lists and maps are made of has none."""
    (version,) = custom_resource_definition(definition)["spec"]["versions"]
    waiting = [("", version["schema"]["openAPIV3Schema"])]
    while waiting:
        name, node = waiting.pop()
        yield name, node
        waiting += node.get("properties", {}).items()
        waiting += [("", node[key]) for key in ("items", "additionalProperties") if key in node]


def test_the_page_is_fresh() -> None:
    stale = [path.name for path, text in generated_files(ROOT).items() if path.read_text() != text]
    assert stale == [], "run `make reference`"


@every_definition
def test_every_field_with_its_description_is_there(definition: Definition) -> None:
    text = page("reference.md").text
    for name, node in nodes(definition):
        if name in ("", "metadata"):
            continue
        assert f"| `{name}` |" in text
        told = " ".join(node.get("description", "").split()).replace("|", "\\|")
        assert told in text, name


@every_definition
def test_every_sentence_of_a_rule_is_there(definition: Definition) -> None:
    text = page("reference.md").text
    for name, node in nodes(definition):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"].replace("|", "\\|") in text, name
