"""Objects of ours that another version wrote, or somebody by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import LocationError, parse_location
from tunesmith.kube.parsing import (
    first_complaint,
    json_of_a_pod,
    readable,
    readable_conditions,
)

from tests.unit.operator import given


def test_one_that_cannot_be_read_does_not_stop_the_others() -> None:
    good = {"kind": "EvalRun", **given.evalrun("good").to_json()}
    bad = {"kind": "EvalRun", "metadata": {"name": "bad", "namespace": "team"}, "spec": {}}
    found = readable(EvalRun.from_object, [bad, good])
    assert [each.metadata.name for each in found] == ["good"]


def test_a_quantity_may_be_a_bare_number() -> None:
    """As YAML reads ``cpu: 8``, and as the schema lets it in."""
    raw = given.finetunejob().to_json()
    raw["spec"]["resources"] = {"gpus": 0, "cpu": 8, "memory": "16Gi"}
    resources = FineTuneJob.from_object(raw).spec.resources
    assert (resources.cpu, resources.memory) == ("8", "16Gi")


@pytest.mark.parametrize(
    "status",
    [
        "text",
        None,
        [],
        {"conditions": "text"},
        {"conditions": [None]},
        {"conditions": [{"type": 1}]},
        {"conditions": {"type": "Succeeded", "status": "True"}},
    ],
)
def test_conditions_that_make_no_sense_are_none(status: Any) -> None:
    assert readable_conditions({"status": status}) == []
    assert readable_conditions({}) == []


def test_what_is_wrong_with_an_object_is_said_in_one_clause() -> None:
    with pytest.raises(ValidationError) as raised:
        EvalRun.from_object({"metadata": {"name": "bad"}, "spec": {"baseModel": 7}})
    assert first_complaint(raised.value).startswith("metadata.namespace: Field required")
    with pytest.raises(LocationError) as unknown:
        parse_location("gs://bucket/rows.jsonl")
    assert "unknown scheme gs://" in first_complaint(unknown.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4000,
        '{"a":' * 4000,
        '{"loss": NaN}',
        '{"loss": -Infinity}',
        '{"loss": 1e999}',
        '{"step": 9223372036854775808}',
        '{"step": ' + "9" * 5000 + "}",
        '{"message": "half \\ud83d a character"}',
        b"\xff\xfe",
        "",
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_no_honest_pod_says_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        json_of_a_pod(text)


def test_what_an_honest_pod_says_is_read() -> None:
    said = {"step": -(2**63), "loss": 1.5e-9, "message": "ü 💥", "done": [None, True]}
    assert json_of_a_pod(json.dumps(said)) == said
    assert json_of_a_pod(json.dumps(said, ensure_ascii=False).encode()) == said
