"""The objects that are thrown at the API server: the same ones for the same seed."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA

from examples.demo.kubectl import Object
from tests.fuzz.schemas import JUNK, ROOT, TEXT, Draw, spec_schemas, spoil, values

API_VERSION = "tunesmith.dev/v1alpha1"
PLURALS = {
    "FineTuneJob": "finetunejobs",
    "EvalRun": "evalruns",
    "AdapterDeployment": "adapterdeployments",
}
POLICY = "TuningPolicy"
SCHEMAS = spec_schemas()
#: Of ten objects, so many are good examples with a few changes; the others only fit the schema.
NEARLY_GOOD = 9
#: How many changes: most objects should be let in, or nearly.
CHANGES = st.sampled_from([1, 1, 1, 1, 1, 2])
#: Labels and annotations that mean something to the operator, with whatever for a value.
MEANINGFUL = st.sampled_from(
    [
        *("tunesmith.dev/finetunejob", "tunesmith.dev/evalrun", "tunesmith.dev/adapterdeployment"),
        *("tunesmith.dev/stage", "tunesmith.dev/attempt", "app.kubernetes.io/managed-by"),
        *(APPROVED_DATA, APPROVED_BY, "kueue.x-k8s.io/queue-name", "team"),
    ]
)
LABEL_VALUES = st.sampled_from(["", "0", "-1", "a", "tunesmith", "support", "x" * 63, "no label!"])
NAMES = st.sampled_from(["A", "a.b", "-a", "a" * 64, "a" * 254, "é", "", "9"])


def good_examples() -> list[Object]:
    """Every object of a tenant in the files that users are shown."""
    return [each for each in _examples() if each["kind"] in PLURALS]


def _examples() -> list[Object]:
    paths = sorted((ROOT / "examples").glob("*.yaml"))
    return [each for path in paths for each in yaml.safe_load_all(path.read_text()) if each]


def fuzzed(count: int, number: int) -> list[Object]:
    """So many objects, drawn with this seed. Their names are unique, but for some that are bad."""
    drawn = _drawn(_objects(good_examples()), count, number)
    for position, each in enumerate(drawn):
        each["metadata"].setdefault("name", f"fuzzed-{number}-{position}")
    return drawn


def policies(namespaces: list[str], number: int) -> list[Object]:
    """One TuningPolicy for each namespace, drawn with this seed; each holds nowhere else."""
    good = [each for each in _examples() if each["kind"] == POLICY]
    drawn = _drawn(_policies(good), len(namespaces), number)
    for namespace, each in zip(namespaces, drawn, strict=True):
        each["metadata"] = {"name": namespace}
        own = {"kubernetes.io/metadata.name": namespace}
        each["spec"]["namespaces"] = {"matchLabels": own}
    return drawn


def _drawn(objects: st.SearchStrategy[Object], count: int, number: int) -> list[Object]:
    """So many different ones. hypothesis likes to repeat itself, with small changes or none."""
    found: dict[str, Object] = {}
    while len(found) < count:
        number += 1

        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(objects)
        def collect(each: Object) -> None:
            found.setdefault(json.dumps(each, sort_keys=True), each)

        collect()
    return list(found.values())[:count]


@st.composite
def _objects(draw: Draw[Any], good: list[Object]) -> Object:
    if draw(st.integers(1, 10)) <= NEARLY_GOOD:
        chosen = draw(st.sampled_from(good))
        kind, spec = chosen["kind"], copy.deepcopy(chosen["spec"])
        for _ in range(draw(CHANGES)):
            spoil(draw, spec, SCHEMAS[kind])
    else:
        kind = draw(st.sampled_from(sorted(PLURALS)))
        spec = draw(values(SCHEMAS[kind]))
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": draw(_metadata()),
        "spec": spec,
    }


@st.composite
def _policies(draw: Draw[Any], good: list[Object]) -> Object:
    """Half of them allow all: what is refused at admission is never given anything."""
    spec = copy.deepcopy(draw(st.sampled_from(good))["spec"])
    parts = SCHEMAS[POLICY]["properties"]
    if draw(st.booleans()):
        del spec["allowed"]
    else:
        spoil(draw, spec["allowed"], parts["allowed"])
    given = spec.setdefault("defaults", {})
    for _ in range(draw(st.integers(1, 3))):
        spoil(draw, given, parts["defaults"])
    return {"apiVersion": API_VERSION, "kind": POLICY, "spec": spec}


@st.composite
def _metadata(draw: Draw[Any]) -> Object:
    metadata: Object = {}
    if draw(st.integers(0, 19)) == 0:
        metadata["name"] = draw(NAMES)
    if draw(st.integers(0, 3)) == 0:
        metadata["labels"] = draw(st.dictionaries(MEANINGFUL, LABEL_VALUES, max_size=3))
    if draw(st.integers(0, 3)) == 0:
        metadata["annotations"] = draw(st.dictionaries(MEANINGFUL, TEXT, max_size=3))
    return metadata


def poison(count: int, number: int) -> list[Object]:
    """Objects that no schema has seen: what another version wrote, or somebody by hand.

    Good ones of which one place in spec or status is anything at all, and some that are hollow.
    """
    drawn = _drawn(_poison(good_examples()), count, number)
    for position, each in enumerate(drawn):
        each["metadata"] = {"name": f"poison-{position}"}
    return drawn


STATUS_FIELDS = st.sampled_from(
    [
        *(
            "conditions",
            "state",
            "attempt",
            "failure",
            "preparation",
            "artifact",
            "dataset",
            "plan",
        ),
        *(
            "progress",
            "results",
            "gates",
            "evaluation",
            "adapters",
            "versions",
            "observedGeneration",
        ),
    ]
)
BAD_CONDITIONS = st.sampled_from(
    [[{}], [{"type": "Succeeded"}], [{"type": 1, "status": True}], [None], ["Succeeded"], {"a": 1}]
)


@st.composite
def _poison(draw: Draw[Any], good: list[Object]) -> Object:
    found: Object = copy.deepcopy(draw(st.sampled_from(good)))
    match draw(st.sampled_from(["hollow", "spec", "spec", "status", "conditions"])):
        case "hollow":
            found["spec"] = draw(JUNK)
        case "spec":
            spec = found["spec"]
            spec[draw(st.sampled_from(sorted(spec)))] = draw(JUNK)
        case "status":
            found["status"] = draw(st.dictionaries(STATUS_FIELDS, JUNK, min_size=1, max_size=3))
        case "conditions":
            found["status"] = {"conditions": draw(BAD_CONDITIONS)}
    return found
