"""The reference of the API as a page, generated from the models.

Run as a module to write or to check docs/reference.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api import GROUP, VERSION
from tunesmith.api.crd import DEFINITIONS, Definition, rules_by_name, without_null
from tunesmith.api.generated import write_or_check

Schema = dict[str, Any]

HEAD = f"""\
<!-- Generated from operator/tunesmith/api by `make reference`. Do not edit. -->

# Reference

Every field of every kind of `{GROUP}/{VERSION}`, as `kubectl explain` tells it, too. What is not
*required* may be left out. A *rule* is checked by the API server, which refuses with this very
sentence; a *rule for changes* is about an object that exists already.
"""

#: The part of Kubernetes' own metadata that the models read is nobody's to look up here.
FOREIGN = {"ObjectMeta"}
BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "maxProperties": "at most {} entries",
}


@dataclass(frozen=True)
class Model:
    """One model: its name, its schema with references, and the rules over it."""

    name: str
    schema: Schema
    rules: list[dict[str, str]]

    @property
    def is_enumeration(self) -> bool:
        return "enum" in self.schema


Models = dict[str, Model]


def models_of(definition: Definition) -> Models:
    """The kind first, then all that is reachable from it, in the order in which it is met."""
    source = definition.model.model_json_schema(mode="validation", by_alias=True)
    schemas = {definition.model.__name__: source, **source.get("$defs", {})}
    rules = rules_by_name(definition.model)
    found: Models = {}
    waiting = [definition.model.__name__]
    while waiting:
        name = waiting.pop(0)
        if name in found or name in FOREIGN:
            continue
        found[name] = Model(name, schemas[name], rules.get(name, []))
        waiting += references(schemas[name].get("properties", {}))
    return found


def references(node: Any) -> list[str]:
    """The names of the models that a schema refers to."""
    match node:
        case {"$ref": str(reference)}:
            return [reference.rsplit("/", 1)[1]]
        case dict():
            return [name for each in node.values() for name in references(each)]
        case list():
            return [name for each in node for name in references(each)]
        case _:
            return []


def page(definitions: list[Definition]) -> str:
    told: set[str] = set()
    parts = [HEAD, contents(definitions)]
    for definition in definitions:
        models = models_of(definition)
        parts.append(f"## {definition.model.__name__}\n\n{introduction(definition)}\n")
        kind, *others = models.values()
        new = [each for each in others if each.name not in told and not each.is_enumeration]
        told |= {each.name for each in new}
        parts.append(section(kind, models, is_kind=True))
        parts += [section(each, models) for each in new]
    return "\n".join(parts).rstrip() + "\n"


def contents(definitions: list[Definition]) -> str:
    names = [each.model.__name__ for each in definitions]
    return "".join(f"- [{name}](#{name.lower()})\n" for name in names)


def introduction(definition: Definition) -> str:
    where = "Of the cluster" if definition.is_cluster_wide else "Of a namespace"
    return f"{where}; `kubectl get {definition.plural}`, in short `{definition.short}`."


def section(model: Model, models: Models, *, is_kind: bool = False) -> str:
    """What the model is, its fields, and what is refused."""
    lines = [] if is_kind else [f"### {model.name}", ""]
    lines += [one_line(model.schema.get("description", "")), ""]
    required = set(model.schema.get("required", ()))
    fields = {
        name: each
        for name, each in model.schema.get("properties", {}).items()
        if not (is_kind and name == "metadata")
    }
    if fields:
        lines += ["| field | type | default | |", "|---|---|---|---|"]
        lines += [
            row(name, without_null(each), models, required=name in required)
            for name, each in fields.items()
        ]
        lines.append("")
    lines += [*told_rules(model.rules)]
    return "\n".join(lines)


def row(name: str, field: Schema, models: Models, *, required: bool) -> str:
    default = "*required*" if required else written_default(field)
    sentences = [one_line(description(field, models)), *allowed(field, models), *bounds(field)]
    sentences += [
        f"Rule: {each['message']}."
        for layer in layers(field)
        for each in layer.get("x-kubernetes-validations", ())
    ]
    cells = (f"`{name}`", type_of(field, models), default, " ".join(filter(None, sentences)))
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def description(field: Schema, models: Models) -> str:
    """The field's own, or what its model says of itself."""
    own = field.get("description")
    named = [models[name].schema for name in references(field) if name in models]
    return str(own or next((each.get("description", "") for each in named), ""))


def layers(field: Schema) -> Iterator[Schema]:
    """The field, and what its list or map is made of."""
    yield field
    for keyword in ("items", "additionalProperties"):
        if isinstance(inner := field.get(keyword), dict):
            yield from layers(inner)


def type_of(field: Schema, models: Models) -> str:
    """Such as "list of [Suite](#suite)"."""
    field = without_null(field)
    match field:
        case {"$ref": str(reference)}:
            model = models.get(reference.rsplit("/", 1)[1])
            if model is None:
                return "object"
            return "word" if model.is_enumeration else f"[{model.name}](#{model.name.lower()})"
        case {"x-kubernetes-int-or-string": True}:
            return "quantity"
        case {"format": "date-time"}:
            return "time"
        case {"type": "array", "items": items}:
            return f"list of {type_of(items, models)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"map of {type_of(values, models)}"
        case _:
            return str(field.get("type", "any"))


def written_default(field: Schema) -> str:
    default = field.get("default")
    match default:
        case None | "" | [] | dict():
            # A model's own defaults are in its section.
            return ""
        case str():
            return f"`{default}`"
        case _:
            return f"`{json.dumps(default)}`"


def allowed(field: Schema, models: Models) -> Iterator[str]:
    """The words that an enumeration has."""
    found = [models[name] for name in references(field) if name in models]
    words = [
        word for each in (field, *(one.schema for one in found)) for word in each.get("enum", ())
    ]
    if words:
        yield f"One of {', '.join(f'`{each}`' for each in words)}."


def bounds(field: Schema) -> Iterator[str]:
    found = [text.format(field[key]) for key, text in BOUNDS.items() if key in field]
    if found:
        yield f"{', '.join(found).capitalize()}."


def told_rules(rules: list[dict[str, str]]) -> Iterator[str]:
    """The sentences, apart from each other by whether they are about a change."""
    for title, is_about_change in (("Rules:", False), ("Rules for changes:", True)):
        sentences = [
            each["message"] for each in rules if ("oldSelf" in each["rule"]) is is_about_change
        ]
        if sentences:
            yield from (title, "", *(f"- {each}" for each in sentences), "")


def one_line(text: str) -> str:
    return " ".join(text.split())


def generated_files(root: Path) -> dict[Path, str]:
    return {root / "docs" / "reference.md": page(DEFINITIONS)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference.md, or check it.")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="root of the checkout")
    parser.add_argument("--check", action="store_true", help="fail when the page is stale")
    arguments = parser.parse_args()
    return write_or_check(
        generated_files(arguments.root), "make reference", check_only=arguments.check
    )


if __name__ == "__main__":
    sys.exit(main())
