"""The data of a FineTuneJob is made ready before a GPU is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import ConditionStatus, FailureClass
from tunesmith.api.trainer_contract import ExitCode, Reason
from tunesmith.kube.plan import Plan

from tests.unit.operator import given
from tests.unit.operator.plans import (
    AT_ONCE,
    again,
    condition,
    created_job,
    created_plan,
    names,
    planned,
    seen,
    status_of,
)

DONE = [given.batch_job(stage="prepare", finished="Complete")]
LAST_WORD = [given.ended(given.outcome(), 0, stage="prepare")]


def new(**spec: Any) -> Plan:
    return planned(seen(given.finetunejob(**spec)))


def prepared(evaluation: Any = None, **outcome: Any) -> Plan:
    job = given.finetunejob(evaluation=evaluation or {})
    pods = [given.ended(given.outcome(**outcome), 0, stage="prepare")]
    return planned(seen(job, preparation=DONE, pods=pods))


def test_a_new_job_first_has_its_data_prepared() -> None:
    made = new()
    assert names(made) == [("Job", "triage-prepare-1")]
    assert created_job(made)["metadata"]["labels"]["tunesmith.dev/stage"] == "prepare"
    assert created_plan(made)["kind"] == "Preparation"
    assert status_of(made).state is JobState.PREPARING
    assert status_of(made).attempt == 0
    assert status_of(made).preparation.attempt == 1  # type: ignore[union-attr]


def test_the_preparation_asks_for_no_gpu_and_for_little_else() -> None:
    (container,) = created_job(new(resources={"gpus": 8}))["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "4Gi"},
        "limits": {"memory": "4Gi"},
    }


def test_the_preparation_takes_the_cpu_and_memory_that_the_spec_names() -> None:
    made = new(resources={"gpus": 8, "cpu": "16", "memory": "64Gi"})
    (container,) = created_job(made)["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "16", "memory": "64Gi"}


def test_the_memory_is_planned_for_the_gpus_that_training_asks_for() -> None:
    hardware = created_plan(new(resources={"gpus": 2, "nodes": 4, "memory": "64Gi"}))["hardware"]
    assert hardware == {
        "gpus": 2,
        "nodes": 4,
        "gpuMemoryBytes": 80 << 30,
        "memoryBytes": 64 << 30,
    }
    own = created_plan(new(resources={"gpuMemory": "24Gi"}))["hardware"]
    assert own["gpuMemoryBytes"] == 24 << 30
    assert "gpuMemoryBytes" not in created_plan(new(resources={"gpus": 0}))["hardware"]


def test_training_must_share_no_text_with_what_it_is_evaluated_on() -> None:
    suites = [
        {"name": "own", "dataset": {"uri": "pvc://data/own.jsonl", "format": "Alpaca"}},
        {"name": "small", "dataset": {"uri": "configmap://small/rows.jsonl"}},
        {"name": "quiz", "dataset": {"uri": "pvc://data/quiz", "format": "MultipleChoice"}},
        {"name": "far", "dataset": {"uri": "hf://datasets/org/name/far.jsonl"}},
    ]
    dataset = {
        "uri": "pvc://data/tickets.jsonl",
        "decontaminateAgainst": ["pvc://tests/set.jsonl", "pvc://data/own.jsonl"],
    }
    made = new(dataset=dataset, evaluation={"suites": suites})
    sets = {each["uri"]: each["format"] for each in created_plan(made)["decontaminateAgainst"]}
    assert sets == {
        "pvc://tests/set.jsonl": "Auto",
        "pvc://data/own.jsonl": "Alpaca",
        "configmap://small/rows.jsonl": "Auto",
        "pvc://data/quiz": "Auto",
    }
    volumes = created_job(made)["spec"]["template"]["spec"]["volumes"]
    claims = [each.get("persistentVolumeClaim", {}).get("claimName") for each in volumes]
    assert "tests" in claims


def test_each_place_is_opened_by_its_own_secret() -> None:
    made = new(
        baseModel={"uri": "hf://org/model", "secretRef": {"name": "hub"}},
        dataset={"uri": "s3://data/rows.jsonl", "secretRef": {"name": "data"}},
        output={"uri": "s3://out", "secretRef": {"name": "store"}},
    )
    (container,) = created_job(made)["spec"]["template"]["spec"]["containers"]
    secrets = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for each in container["env"]
        if "valueFrom" in each
    }
    assert secrets == {"hub", "data", "store"}
    assert created_plan(made)["dataset"]["credentials"] == "DATASET"
    assert created_plan(made)["output"]["uri"] == "s3://out/team/triage/uid-triage"


def test_every_attempt_trains_the_commit_of_the_hub_that_the_preparation_saw() -> None:
    """The branch may move meanwhile, and checkpoints are of one model."""
    own: dict[str, Any] = {"baseModel": {"uri": "hf://org/model@main"}, "evaluation": AT_ONCE}
    said = given.outcome(base_model_revision="0123456789abcdef")
    first = planned(
        seen(
            given.finetunejob(**own),
            preparation=DONE,
            pods=[given.ended(said, 0, stage="prepare")],
        )
    )
    # The Job is deleted by hand: nothing but the status knows the commit then.
    second = planned(seen(again(first, **own)))
    for made in (first, second):
        assert created_plan(made)["kind"] == "Training"
        assert created_plan(made)["baseModel"]["uri"] == "hf://org/model@0123456789abcdef"


def test_every_attempt_has_the_same_plan_so_that_its_folder_is_found_again() -> None:
    lost = [given.batch_job(stage="prepare", finished="Failed")]
    crash = given.pod(1, "Failed", terminated={"exitCode": 1}, stage="prepare")
    second = planned(seen(given.finetunejob(), preparation=lost, pods=[crash]))
    assert names(second)[-1] == ("Job", "triage-prepare-2")
    assert created_plan(second) == created_plan(new())


def test_while_it_is_prepared_nothing_else_is_made() -> None:
    running = [given.batch_job(stage="prepare")]
    pods = [given.pod(stage="prepare")]
    made = planned(seen(given.finetunejob(), preparation=running, pods=pods))
    assert not made.create
    assert status_of(made).state is JobState.PREPARING
    assert condition(made, "Prepared").status is ConditionStatus.UNKNOWN


def test_status_tells_what_became_of_the_data_and_how_it_fits() -> None:
    made = prepared()
    status = status_of(made)
    assert status.dataset == given.receipt()
    assert status.plan == given.memory_plan()
    assert status.review is not None
    assert status.review.page == f"{given.PREPARED_URI}/review.html"
    ready = condition(made, "Prepared")
    assert ready.status is ConditionStatus.TRUE
    assert "1080 examples to train on, 120 held out" in ready.message


def test_what_is_worth_telling_about_the_data_is_a_warning() -> None:
    made = prepared(warnings=["12 examples were longer than maxLength."])
    assert "12 examples were longer" in condition(made, "Warning").message
    later = planned(seen(again(made)))
    assert "12 examples were longer" in condition(later, "Warning").message


def test_then_the_base_model_is_measured_on_the_sealed_examples() -> None:
    made = prepared()
    (run,) = made.create
    assert run["kind"] == "EvalRun"
    assert run["spec"]["suites"][0]["dataset"]["uri"] == f"{given.PREPARED_URI}/heldout.jsonl"


def test_without_a_preflight_training_follows_at_once_on_the_prepared_folder() -> None:
    made = prepared(AT_ONCE)
    plan = created_plan(made)
    assert plan["kind"] == "Training"
    assert plan["prepared"]["uri"] == given.PREPARED_URI
    assert plan["dataset"]["digest"] == given.DIGEST
    assert plan["memory"] == given.memory_plan().to_json()


def test_the_data_outlives_the_batch_job_that_prepared_it() -> None:
    first = prepared(AT_ONCE)
    status = {**first.status.to_json(), "attempt": 0}
    made = planned(seen(given.finetunejob(status=status, evaluation=AT_ONCE)))
    assert created_plan(made) == created_plan(first)


def test_a_result_that_was_lost_with_its_pod_is_fetched_by_another_attempt() -> None:
    made = planned(seen(given.finetunejob(), preparation=DONE))
    assert condition(made, "Stalled").reason == "ResultLost"
    assert not made.create


def test_a_missing_config_map_is_named_although_the_pod_does_not_tell() -> None:
    waiting = [given.batch_job(stage="prepare")]
    pods = [given.pod(phase="Pending", stage="prepare")]
    made = planned(
        seen(given.finetunejob(), preparation=waiting, pods=pods, missing_config_map="rows")
    )
    assert condition(made, "Stalled").reason == "ConfigMapNotFound"
    assert "ConfigMap rows" in condition(made, "Prepared").message


def failed(reason: Reason, number: int = 5) -> Plan:
    jobs = [given.batch_job(number, stage="prepare", finished="Failed")]
    word = given.failed(FailureClass.USER_ERROR, reason, "This is wrong.")
    pods = [given.ended(word, ExitCode.USER_ERROR, number, stage="prepare")]
    return planned(seen(given.finetunejob(), preparation=jobs, pods=pods))


def test_a_fault_of_the_data_waits_and_says_when_it_is_tried_again() -> None:
    made = failed(Reason.DATASET_EMPTY)
    assert status_of(made).state is JobState.WAITING
    succeeded = condition(made, "Succeeded")
    assert (succeeded.status, succeeded.reason) == (ConditionStatus.FALSE, "DatasetEmpty")
    assert "attempt 6 follows by itself" in succeeded.message
    assert condition(made, "Prepared").status is ConditionStatus.FALSE
    failure = status_of(made).preparation.failure  # type: ignore[union-attr]
    assert failure is not None
    assert (failure.failure_class, failure.exit_code) == ("UserError", 10)


def test_what_does_not_fit_is_refused_for_good() -> None:
    made = failed(Reason.DOES_NOT_FIT, number=1)
    assert status_of(made).state is JobState.FAILED
    assert "no other follows" in condition(made, "Succeeded").message
    assert not made.create


def retry(status: given.Raw) -> Plan:
    """The plan after a failed verdict, with this status."""
    jobs = [given.batch_job(finished="Complete")]
    run = given.evalrun(
        status={
            "verdict": "Failed",
            "adapterDigest": given.DIGEST,
            "results": given.measured(suite="mmlu", difference=-5.0).to_json()["results"],
            "gates": [{"suite": "mmlu", "minimumDifference": -3, "verdict": "Failed"}],
        },
        suites=[{"name": "mmlu", "benchmark": {"name": "mmlu"}}],
    )
    job = given.finetunejob(status=status, evaluation={"onFailure": "Retry"})
    return planned(seen(job, jobs, pods=[given.ended(given.trained(), 0)], eval_runs=[run]))


def test_a_retry_with_another_learning_rate_prepares_nothing_anew() -> None:
    made = retry(given.prepared(attempt=1))
    assert names(made)[-1] == ("Job", "triage-train-2")
    assert created_plan(made)["prepared"]["uri"] == given.PREPARED_URI


def test_a_retry_of_a_job_that_forgot_where_its_data_is_prepares_first() -> None:
    verdict = {"name": "told-before", "verdict": "Failed", "adapterDigest": given.DIGEST}
    made = retry({"evaluation": verdict})
    assert names(made)[-1] == ("Job", "triage-prepare-1")
    assert status_of(made).artifact == given.artifact()
    assert status_of(made).evaluation.name == "told-before"  # type: ignore[union-attr]


def spoilt() -> tuple[list[given.Raw], list[given.Raw]]:
    """Training found other files than were prepared."""
    word = given.failed(FailureClass.USER_ERROR, Reason.PREPARED_DATA_CHANGED, "Changed.")
    return [given.batch_job(finished="Failed")], [given.ended(word, ExitCode.USER_ERROR)]


def test_prepared_data_that_somebody_changed_is_prepared_anew() -> None:
    jobs, pods = spoilt()
    job = given.finetunejob(status=given.prepared(attempt=1))
    made = planned(seen(job, jobs, DONE, [*pods, *LAST_WORD]))
    assert names(made)[-1] == ("Job", "triage-prepare-2")
    assert status_of(made).preparation.uri is None  # type: ignore[union-attr]


def test_while_it_is_prepared_anew_nothing_is_trained_on_the_old_folder() -> None:
    jobs, pods = spoilt()
    status = given.prepared(attempt=1, preparation={"attempt": 2, "countedFailures": 0})
    newer = given.batch_job(2, stage="prepare")
    newer["status"]["startTime"] = given.moment(30)
    job = given.finetunejob(status=status, evaluation=AT_ONCE)
    running = given.pod(2, stage="prepare")
    made = planned(seen(job, jobs, [*DONE, newer], [*pods, *LAST_WORD, running]))
    assert not made.create
    assert status_of(made).state is JobState.PREPARING


def test_once_it_is_prepared_anew_training_goes_on() -> None:
    jobs, pods = spoilt()
    job = given.finetunejob(status=given.prepared(attempt=1), evaluation=AT_ONCE)
    newer = given.batch_job(2, stage="prepare", finished="Complete")
    newer["status"]["startTime"] = given.moment(30)
    second = given.ended(given.outcome(), 0, 2, stage="prepare")
    made = planned(seen(job, jobs, [*DONE, newer], [*pods, *LAST_WORD, second]))
    assert names(made)[-1] == ("Job", "triage-train-2")


@pytest.mark.parametrize("pod", [given.pod(), given.ended(given.trained(), 0)])
def test_a_wiped_status_prepares_nothing_while_training_is_under_way(pod: given.Raw) -> None:
    finished = "Complete" if pod["status"]["phase"] == "Succeeded" else None
    made = planned(seen(given.finetunejob(), [given.batch_job(finished=finished)], pods=[pod]))
    assert "triage-prepare-1" not in [name for _, name in names(made)]
