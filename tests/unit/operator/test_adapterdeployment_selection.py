"""Which adapters may be served: only what was judged, in exactly these files, on this base."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.adapterdeployment import rollout
from tunesmith.adapterdeployment.selection import base_model_name, select, selector_labels
from tunesmith.api.adapter_selection import GateRule
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import ArtifactKind
from tunesmith.api.output import Output

from tests.unit.operator import given
from tests.unit.operator.serving_given import (
    digest,
    passed_run,
    ready_job,
    served,
    settled,
    version,
    versions_of,
)


def named(number: int = 1, name: str = "triage", **fields: Any) -> given.Raw:
    uri = f"pvc://shared/{name}-{number}"
    return {"name": name, "uri": uri, "digest": digest(number), **fields}


def with_named(*adapters: given.Raw) -> given.Raw:
    return {"adapters": {"named": list(adapters)}}


# Jobs


def test_an_adapter_that_passed_for_its_digest_is_served() -> None:
    (served,) = select(given.adapterdeployment(), [ready_job()]).candidates()
    assert (served.name, served.digest, served.job) == ("triage", digest(1), "triage")
    assert (served.gate, served.evaluated_by) == (GateRule.PASSED, "triage-eval")
    assert served.base_model_digest == given.BASE_DIGEST


def test_a_version_is_named_by_the_begin_of_its_digest() -> None:
    (served,) = select(given.adapterdeployment(), [ready_job(number=7)]).candidates()
    assert served.model == "triage@000000000007"
    assert served.path == "/mnt/claims/models/tuned/triage"


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (given.finetunejob(), "NotTrained"),
        (ready_job(evaluation={"name": "x", "verdict": "Failed"}), "EvaluationPassed"),
        (
            ready_job(evaluation={"name": "x", "verdict": "Passed", "adapterDigest": digest(2)}),
            "EvaluationPassed",
        ),
        (ready_job(conditions=[]), "NotTrained"),
        (ready_job(base="pvc://models/other"), "OtherBaseModel"),
        (
            given.finetunejob(status={"artifact": given.artifact(ArtifactKind.MODEL).to_json()}),
            "NotAnAdapter",
        ),
        (ready_job(name="smol"), "NameTaken"),
        (ready_job(serves="smol"), "NameTaken"),
    ],
)
def test_anything_else_is_refused_with_a_reason(job: FineTuneJob, reason: str) -> None:
    selection = select(given.adapterdeployment(), [job])
    assert not selection.served
    assert [(each.name, each.reason) for each in selection.rejected] == [
        (job.metadata.name, reason)
    ]


def test_an_adapter_in_a_bucket_is_not_served_and_the_remedy_is_told() -> None:
    job = ready_job()
    output = Output(uri="s3://adapters/tuned")
    stored = job.model_copy(update={"spec": job.spec.model_copy(update={"output": output})})
    (rejected,) = select(given.adapterdeployment(), [stored]).rejected
    assert rejected.reason == "NotOnClaim"
    assert "s3://adapters/tuned" in rejected.message
    assert "copy the adapter's folder to a claim" in rejected.message
    assert digest(1) in rejected.message


def test_a_job_on_a_base_model_in_a_bucket_is_told_where_served_models_lie() -> None:
    job = ready_job(base="s3://models/llama")
    (rejected,) = select(given.adapterdeployment(), [job]).rejected
    assert rejected.reason == "OtherBaseModel"
    assert "A model is served from a claim or from the hub" in rejected.message


def test_a_job_that_is_being_deleted_is_served_no_more() -> None:
    job = ready_job()
    leaving = job.metadata.model_copy(update={"deletion_timestamp": given.moment(1)})
    selection = select(given.adapterdeployment(), [job.model_copy(update={"metadata": leaving})])
    assert [each.reason for each in selection.rejected] == ["BeingDeleted"]


def test_jobs_with_one_adapter_name_are_versions_from_the_oldest_to_the_newest() -> None:
    jobs = versions_of("triage", 3, 1, 2)
    served = select(given.adapterdeployment(), jobs).served
    assert {name: [each.version for each in found] for name, found in served.items()} == {
        "triage": [version(1), version(2), version(3)]
    }


def test_two_jobs_with_the_same_digest_are_one_version() -> None:
    newer = ready_job("one", 1, serves="triage", age=1)
    older = ready_job("two", 1, serves="triage", age=2)
    (served,) = select(given.adapterdeployment(), [newer, older]).candidates()
    assert (served.job, served.uri) == ("two", "pvc://models/tuned/two"), "the older one stays"


def test_the_same_files_under_two_names_are_two_adapters() -> None:
    jobs = [ready_job("one", 1), ready_job("two", 1)]
    assert list(select(given.adapterdeployment(), jobs).served) == ["one", "two"]


# Named adapters


def test_a_named_adapter_is_served_for_a_verdict_about_its_digest() -> None:
    (served,) = select(
        given.adapterdeployment(**with_named(named())), [], [passed_run()]
    ).candidates()
    assert (served.gate, served.evaluated_by) == (GateRule.PASSED, "judge")
    assert served.base_model_digest == given.BASE_DIGEST


@pytest.mark.parametrize(
    "run",
    [
        passed_run(2),
        passed_run(1, baseModel={"uri": "pvc://models/other"}),
        given.evalrun(status={"verdict": "Failed", "adapterDigest": digest(1)}),
        given.evalrun(status={"verdict": "Inconclusive", "adapterDigest": digest(1)}),
        given.evalrun(adapter={"uri": "pvc://shared/triage-1", "digest": digest(1)}),
    ],
    ids=["other digest", "other base", "failed", "inconclusive", "no verdict yet"],
)
def test_a_verdict_about_anything_else_does_not_count(run: EvalRun) -> None:
    selection = select(given.adapterdeployment(**with_named(named())), [], [run])
    assert not selection.served
    assert [each.reason for each in selection.rejected] == ["NotEvaluated"]
    assert "gate: None" in selection.rejected[0].message


def test_without_a_gate_nobody_is_asked() -> None:
    (served,) = select(given.adapterdeployment(**with_named(named(gate="None"))), []).candidates()
    assert (served.gate, served.evaluated_by) == (GateRule.NONE, None)
    assert served.base_model_digest is None


def test_the_last_entry_of_a_name_is_its_newest_version() -> None:
    spec = with_named(named(2, gate="None"), named(1, gate="None"))
    served = select(given.adapterdeployment(**spec), []).served["triage"]
    assert [each.version for each in served] == [version(2), version(1)]


def test_more_names_than_status_has_room_for_are_told_and_the_rest_is_served() -> None:
    """Those that are served already come first, whatever they are called."""
    named = [
        {
            "name": f"name-{number:04}",
            "uri": "pvc://models/one",
            "digest": digest(1),
            "gate": "None",
        }
        for number in range(1000)
    ]
    adapters = {"selector": {"matchLabels": {"team": "support"}}}
    world = settled(ready_job("zebra"), adapters=adapters)
    world.change(adapters={**adapters, "named": named})
    status = world.step()
    assert (status.adapter_count, len(status.not_served)) == (1000, 1)
    assert (status.not_served[0].name, status.not_served[0].reason) == ("name-0999", "TooManyNames")
    assert served(status, "zebra").state == "Promoted"


def test_versions_that_are_only_kept_go_first_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout, "MOST_VERSIONS", 3)
    world = settled(*versions_of("triage", 1, 2, 3), *versions_of("urgent", 4, 5))
    status = world.step()
    kept: dict[str, list[str]] = {each.name: [] for each in status.adapters}
    for each in status.adapters:
        kept[each.name].append(str(each.state))
    assert sorted(kept["triage"] + kept["urgent"]) == ["Promoted", "Promoted", "Standby"]


def test_a_named_adapter_may_not_take_the_name_of_the_base_model() -> None:
    selection = select(given.adapterdeployment(**with_named(named(name="smol", gate="None"))), [])
    assert [each.reason for each in selection.rejected] == ["NameTaken"]


# Which jobs, and what the base is called


@pytest.mark.parametrize(
    ("adapters", "labels"),
    [
        ({}, {}),
        ({"selector": {"matchLabels": {"team": "a"}}}, {"team": "a"}),
        ({"named": [named()]}, None),
        ({"named": [named()], "selector": {}}, {}),
    ],
    ids=["all of the namespace", "by label", "none beside named ones", "named ones and all"],
)
def test_the_selector_chooses_jobs(adapters: given.Raw, labels: dict[str, str] | None) -> None:
    assert selector_labels(given.adapterdeployment(adapters=adapters)) == labels


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({}, "smol"),
        ({"servedModelName": "house"}, "house"),
        ({"baseModel": {"uri": "pvc://models"}}, "models"),
        ({"baseModel": {"uri": "hf://meta/Llama-8B@main"}}, "Llama-8B"),
    ],
)
def test_the_base_answers_to_its_name_or_the_end_of_its_uri(spec: given.Raw, name: str) -> None:
    assert base_model_name(given.adapterdeployment(**spec)) == name
