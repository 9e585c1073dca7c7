"""The CustomResourceDefinitions, generated from the API models.

pydantic's JSON schema is not what the API server takes: a structural schema has no ``$ref``, no
``null`` and no ``title``. Run as a module to write or to check the generated files.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from tunesmith.api import GROUP, VERSION
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.generated import write_or_check
from tunesmith.api.tuningpolicy import TuningPolicy

Schema = dict[str, Any]

#: Keywords of JSON schema that mean the same in a structural schema and are kept as they are.
KEPT = {
    "default", "description", "enum", "format", "maximum", "maxItems", "maxLength",
    "maxProperties", "minimum", "minItems", "minLength", "type",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of ``kubectl get``; priority 1 shows it only with ``-o wide``."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0

    def to_json(self) -> Schema:
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "priority": self.priority,
        }


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def reason_column(condition: str) -> Column:
    return Column("Reason", f'.status.conditions[?(@.type=="{condition}")].reason', priority=1)


@dataclass(frozen=True)
class Definition:
    """What a CRD says beyond its schema."""

    model: type[BaseModel]
    plural: str
    short: str
    columns: list[Column]
    scale: Schema | None = field(default=None)
    #: Of the cluster, not of a namespace.
    is_cluster_wide: bool = False


DEFINITIONS = [
    Definition(
        FineTuneJob,
        "finetunejobs",
        "ftj",
        [
            Column("State", ".status.state"),
            Column("Progress", ".status.progress.percent", "integer"),
            Column("Loss", ".status.progress.loss", "number"),
            Column("ETA", ".status.progress.eta"),
            Column("Verdict", ".status.evaluation.verdict"),
            reason_column("Succeeded"),
            Column("Base", ".spec.baseModel.uri", priority=1),
            Column("Preflight", '.status.conditions[?(@.type=="Preflight")].reason', priority=1),
            Column("Method", ".status.plan.method", priority=1),
            Column("Micro-Batch", ".status.plan.microBatchSize", "integer", priority=1),
            Column("GPUs", ".spec.resources.gpus", "integer", priority=1),
            Column("Nodes", ".spec.resources.nodes", "integer", priority=1),
            Column("GPU-Seconds", ".status.usage.gpuSeconds", "integer", priority=1),
            Column("Attempt", ".status.attempt", "integer", priority=1),
            Column("Digest", ".status.artifact.digest", priority=1),
            AGE,
        ],
    ),
    Definition(
        EvalRun,
        "evalruns",
        "evr",
        [
            Column("State", ".status.state"),
            Column("Progress", ".status.progress.percent", "integer"),
            Column("Metric", ".status.results[0].metric"),
            Column("Base", ".status.results[0].base", "number"),
            Column("Adapter", ".status.results[0].adapter", "number"),
            Column("Verdict", ".status.verdict"),
            reason_column("Succeeded"),
            Column("Digest", ".status.adapterDigest", priority=1),
            AGE,
        ],
    ),
    Definition(
        AdapterDeployment,
        "adapterdeployments",
        "adp",
        [
            Column("State", ".status.state"),
            Column("Replicas", ".spec.replicas", "integer"),
            Column("Ready", ".status.readyReplicas", "integer"),
            Column("Adapters", ".status.adapterCount", "integer"),
            Column("Endpoint", ".status.endpoint"),
            reason_column("Ready"),
            Column("Base", ".status.baseModelName", priority=1),
            AGE,
        ],
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
    Definition(
        TuningPolicy,
        "tuningpolicies",
        "tpol",
        [
            Column("Namespaces", ".spec.namespaces.matchLabels"),
            Column("Methods", ".spec.allowed.methods"),
            Column("Max-GPUs", ".spec.allowed.maxGpus", "integer"),
            Column("Max-Hours", ".spec.allowed.maxHours", "number"),
            Column("Queue", ".spec.defaults.queue"),
            AGE,
        ],
        is_cluster_wide=True,
    ),
]


def structural_schema(model: type[BaseModel]) -> Schema:
    """The model's schema as the API server accepts it."""
    source = model.model_json_schema(mode="validation", by_alias=True)
    return _convert(source, source.get("$defs", {}), rules_by_name(model))


def rules_by_name(model: type[BaseModel]) -> dict[str, list[dict[str, str]]]:
    """CEL rules of every model reachable from this one, by the model's name."""
    found: dict[str, list[dict[str, str]]] = {}
    waiting: list[Any] = [model]
    while waiting:
        current = waiting.pop()
        if isinstance(current, type) and issubclass(current, BaseModel):
            if current.__name__ not in found:
                found[current.__name__] = list(getattr(current, "cel_rules", ()))
                waiting.extend(each.annotation for each in current.model_fields.values())
        else:
            waiting.extend(getattr(current, "__args__", ()))
    return found


def _convert(
    source: Schema, definitions: dict[str, Schema], rules: dict[str, list[dict[str, str]]]
) -> Schema:
    source = without_null(source)
    if "$ref" in source:
        name = source["$ref"].rsplit("/", 1)[1]
        target = _convert({"title": name, **definitions[name]}, definitions, rules)
        return target | _own_keywords(source, definitions, rules)
    return _own_keywords(source, definitions, rules)


def _own_keywords(
    source: Schema, definitions: dict[str, Schema], rules: dict[str, list[dict[str, str]]]
) -> Schema:
    result = {
        key: value
        for key, value in source.items()
        if key in KEPT or key.startswith("x-kubernetes-")
    }
    if result.get("default", ...) is None:
        del result["default"]
    if isinstance(result.get("default"), dict):
        # The API server checks rules against a default as it is written, before the members'
        # own defaults are filled in, so it is written out; only null has no place in it.
        result["default"] = {
            key: each for key, each in result["default"].items() if each is not None
        }
    if "items" in source:
        result["items"] = _convert(source["items"], definitions, rules)
    if "properties" in source:
        result["properties"] = {
            name: _convert(each, definitions, rules) for name, each in source["properties"].items()
        }
        if source.get("required"):
            result["required"] = list(source["required"])
        if rules.get(source.get("title", "")):
            result["x-kubernetes-validations"] = rules[source["title"]]
    elif isinstance(source.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(
            source["additionalProperties"], definitions, rules
        )
    return result


def without_null(source: Schema) -> Schema:
    """``anyOf: [T, null]`` is how pydantic says optional; the API server says it by absence."""
    match source:
        case {"anyOf": [chosen, {"type": "null"}], **rest}:
            return {**chosen, **rest}
        case {"allOf": [chosen], **rest}:
            return {**chosen, **rest}
        case _:
            return source


def custom_resource_definition(definition: Definition) -> Schema:
    """The whole CRD of one kind."""
    kind = definition.model.__name__
    schema = structural_schema(definition.model)
    properties = schema["properties"]
    properties["metadata"] = {"type": "object"}
    properties.get("status", {}).pop("default", None)
    whole = {"type": "object", "description": definition.model.__doc__, "required": ["spec"]}
    whole["properties"] = properties
    if over_all := schema.get("x-kubernetes-validations"):
        whole["x-kubernetes-validations"] = over_all
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster" if definition.is_cluster_wide else "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": definition.plural,
                "singular": kind.lower(),
                "shortNames": [definition.short],
                # Who may only see a namespace could get none of a category that holds more.
                **({} if definition.is_cluster_wide else {"categories": ["tunesmith"]}),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    **_subresources(definition),
                    "additionalPrinterColumns": [each.to_json() for each in definition.columns],
                    "schema": {"openAPIV3Schema": whole},
                }
            ],
        },
    }


def _subresources(definition: Definition) -> Schema:
    if "status" not in definition.model.model_fields:
        return {}
    scale = {"scale": definition.scale} if definition.scale else {}
    return {"subresources": {"status": {}, **scale}}


HEADER = "# Generated from operator/tunesmith/api by `make crds`. Do not edit.\n"
CHART_HEAD = "{{- if .Values.crds.install }}\n"
CHART_TAIL = "{{- end }}\n"


class _PlainDumper(yaml.SafeDumper):
    """Writes shared values out instead of as anchors, which kubectl users do not expect."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _to_yaml(manifest: Schema) -> str:
    return yaml.dump(manifest, Dumper=_PlainDumper, sort_keys=False, width=100)


def generated_files(root: Path) -> dict[Path, str]:
    """Every generated file with its content: plain CRDs, and the same inside the chart."""
    files: dict[Path, str] = {}
    for definition in DEFINITIONS:
        manifest = custom_resource_definition(definition)
        name = f"{definition.plural}.yaml"
        files[root / "crds" / name] = HEADER + _to_yaml(manifest)
        kept = {
            **manifest,
            "metadata": {
                **manifest["metadata"],
                # Deleting a CRD deletes every object of its kind: uninstalling must not, and
                # neither must Argo CD when crds.install becomes false.
                "annotations": {
                    "helm.sh/resource-policy": "keep",
                    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
                },
            },
        }
        text = HEADER + CHART_HEAD + _to_yaml(kept) + CHART_TAIL
        files[root / "charts" / "tunesmith" / "templates" / "crds" / name] = text
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated CRDs, or check them.")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="root of the checkout")
    parser.add_argument("--check", action="store_true", help="fail when a file is stale")
    arguments = parser.parse_args()
    return write_or_check(generated_files(arguments.root), "make crds", check_only=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
