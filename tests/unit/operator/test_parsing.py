"""Objects of ours that another version wrote."""

from __future__ import annotations

from tunesmith.api.evalrun import EvalRun
from tunesmith.kube.parsing import readable

from tests.unit.operator import given


def test_one_that_cannot_be_read_does_not_stop_the_others() -> None:
    good = {"kind": "EvalRun", **given.evalrun("good").to_json()}
    bad = {"kind": "EvalRun", "metadata": {"name": "bad", "namespace": "team"}, "spec": {}}
    found = readable(EvalRun.from_object, [bad, good])
    assert [each.metadata.name for each in found] == ["good"]
