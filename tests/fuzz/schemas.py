"""Values for the schema of a CustomResourceDefinition, valid and not, as hypothesis draws them.

The dialect is Kubernetes' own: int-or-string, no ``$ref``, rules in CEL, which are not looked at
here, so that what only a rule refuses is drawn, too. hypothesis-jsonschema was tried: its last
version breaks with this hypothesis, and knows none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hypothesis import strategies as st

Schema = dict[str, Any]
Drawn = TypeVar("Drawn")
Draw = Callable[[st.SearchStrategy[Drawn]], Drawn]

ROOT = Path(__file__).parents[2]

#: About one of six optional fields is set.
SELDOM = st.sampled_from([False] * 5 + [True])
WORDS = st.sampled_from(
    [
        *(
            "a",
            "A",
            "0",
            "-",
            ".",
            "..",
            "/",
            " ",
            "\n",
            "null",
            "true",
            "~",
            "%s",
            "{{1}}",
            "$(A)",
        ),
        *("pvc://claim/folder", "pvc://a/../b", "hf://org/name", "hf://org/name@main", "s3://b/k"),
        *("configmap://small/rows.jsonl", "https://host/a.tar", "sha256:" + "0" * 64),
        *("team", "tunesmith.dev/a", "nvidia.com/gpu", "💥", "\u202e", "é" * 20, "x" * 64),
    ]
)
TEXT = WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTEGERS = st.sampled_from(
    [-(2**63), -1, 0, 1, 2, 3, 4, 8, 16, 64, 100, 1000, 2**31, 2**53 + 1, 2**63 - 1]
) | st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.sampled_from([-1.0, 0.0, 0.1, 0.5, 1.0, 1e-300, 1e300]) | st.floats(
    allow_nan=False, allow_infinity=False
)
QUANTITIES = st.sampled_from(
    ["1", "500m", "16Gi", "0", "-1", "1e3", "1e99", "9E", "1n", "0.1", "64 Gi", "a lot", ""]
)
JUNK = st.recursive(
    st.none() | st.booleans() | INTEGERS | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def spec_schemas() -> dict[str, Schema]:
    """The schema of each kind's spec, from the files that are installed."""
    found = {}
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(path.read_text())["spec"]
        (version,) = definition["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        found[definition["names"]["kind"]] = schema["properties"]["spec"]
    return found


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """What the schema allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return QUANTITIES | INTEGERS
    match schema.get("type"):
        case "object":
            return objects(schema)
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            return st.lists(
                values(schema["items"]), min_size=schema.get("minItems", 0), max_size=most
            )
        case "string":
            return TEXT.map(lambda text: text[: schema.get("maxLength", 100)])
        case "integer":
            return INTEGERS
        case "number":
            return NUMBERS
        case "boolean":
            return st.booleans()
        case _:
            return JUNK


@st.composite
def objects(draw: Draw[Any], schema: Schema) -> Schema:
    """All required fields, and some of the others."""
    if isinstance(schema.get("additionalProperties"), dict):
        inner = values(schema["additionalProperties"])
        return dict(draw(st.dictionaries(TEXT, inner, max_size=3)))
    required = schema.get("required", [])
    return {
        name: draw(values(each))
        for name, each in schema.get("properties", {}).items()
        if name in required or draw(SELDOM)
    }


def spoil(draw: Draw[Any], node: Schema, schema: Schema) -> None:
    """Change one place of an object: mostly to something that its schema allows."""
    properties = schema.get("properties", {})
    inner = [name for name, each in node.items() if isinstance(each, dict) and name in properties]
    if inner and draw(st.booleans()):
        name = draw(st.sampled_from(inner))
        return spoil(draw, node[name], properties[name])
    change = draw(st.sampled_from(["set"] * 7 + ["remove", "junk", "unknown"]))
    if change == "unknown" or not properties:
        node[draw(TEXT)] = draw(JUNK)
    elif change == "remove" and node:
        del node[draw(st.sampled_from(sorted(node)))]
    else:
        name = draw(st.sampled_from(sorted(properties)))
        node[name] = draw(JUNK if change == "junk" else values(properties[name]))
    return None
