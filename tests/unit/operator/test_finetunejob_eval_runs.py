"""The EvalRuns that a FineTuneJob makes, before training and after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from tunesmith.api.evalrun import EvalRunSpec
from tunesmith.api.evaluation_suite import BenchmarkSize
from tunesmith.api.job_status import ArtifactKind
from tunesmith.finetunejob.decision import Prepared
from tunesmith.finetunejob.eval_runs import eval_run, preflight_run
from tunesmith.settings import GeneralKnowledge, settings_from

from tests.unit.operator import given

MMLU = {"name": "mmlu", "benchmark": {"name": "mmlu", "size": "Fast"}}


def after(**evaluation: Any) -> dict[str, Any]:
    job = given.finetunejob(evaluation=evaluation)
    made = eval_run(job, given.artifact(), given.receipt(), given.SETTINGS)
    return dict(made["spec"])


DATA = Prepared(given.PREPARED_URI, given.receipt(), given.memory_plan())


def before(**evaluation: Any) -> dict[str, Any]:
    job = given.finetunejob(evaluation=evaluation)
    return dict(preflight_run(job, DATA, given.SETTINGS)["spec"])


def test_the_longest_output_leaves_room_for_what_is_stored_below_it() -> None:
    """An EvalRun that the API server refuses would be the end of a job that has trained."""
    name, namespace, uid = "n" * 40, "s" * 63, "u" * 36
    metadata = {"name": name, "namespace": namespace, "uid": uid}
    longest = "pvc://adapters/".ljust(200, "x")
    job = given.finetunejob(output={"uri": longest})
    named = job.metadata.model_copy(update=metadata)
    made = eval_run(
        job.model_copy(update={"metadata": named}), given.artifact(), None, given.SETTINGS
    )
    assert len(made["spec"]["outputUri"]) > 300
    EvalRunSpec.model_validate(made["spec"])
    with pytest.raises(ValidationError):
        given.finetunejob(output={"uri": f"{longest}x"})


def test_the_sealed_examples_of_this_very_dataset_are_asked() -> None:
    dataset = after()["suites"][0]["dataset"]
    assert dataset["uri"] == f"{given.artifact().uri}/heldout.jsonl"
    assert dataset["digest"] == given.BASE_DIGEST


def test_the_base_models_prompt_is_chosen_on_examples_of_the_training_side() -> None:
    prompted = after(systemPrompts=["Be brief."])["suites"][0]["promptedBase"]
    assert prompted["examples"]["uri"] == f"{given.artifact().uri}/prompt-examples.jsonl"
    assert prompted["systemPrompts"] == ["Be brief."]
    assert "promptedBase" not in after(promptedBase=False)["suites"][0]


def test_further_suites_and_their_gates_are_handed_on_as_they_are() -> None:
    spec = after(
        suites=[MMLU],
        gates=[{"suite": "mmlu", "minimumDifference": -2}],
        minimumDifference=1,
        onInconclusive="Extend",
    )
    assert [each["name"] for each in spec["suites"]] == ["held-out", "mmlu"]
    assert spec["gates"] == [
        {"suite": "held-out", "minimumDifference": 1.0, "onInconclusive": "Extend"},
        {"suite": "mmlu", "minimumDifference": -2.0},
    ]


def test_the_run_before_training_has_no_adapter_and_asks_what_will_be_held_out() -> None:
    spec = before(suites=[MMLU])
    assert "adapter" not in spec
    assert spec["gates"] == []
    held_out, mmlu = spec["suites"]
    assert held_out["dataset"]["uri"] == f"{given.PREPARED_URI}/heldout.jsonl"
    assert held_out["dataset"]["digest"] == given.receipt().held_out_digest
    examples = held_out["promptedBase"]["examples"]["uri"]
    assert examples == f"{given.PREPARED_URI}/prompt-examples.jsonl"
    assert mmlu["name"] == "mmlu"


def test_both_runs_keep_the_base_models_answers_in_one_folder_for_the_namespace() -> None:
    folder = "pvc://adapters/tuned/team/base-results"
    assert before()["baseResultsUri"] == after()["baseResultsUri"] == folder


def test_an_evaluation_asks_for_one_gpu_however_many_train() -> None:
    job = given.finetunejob(resources={"gpus": 8, "nodes": 4, "memory": "1Ti"})
    made = eval_run(job, given.artifact(), given.receipt(), given.SETTINGS)
    assert made["spec"]["resources"] == {"gpus": 1, "memory": "1Ti"}
    on_cpu = given.finetunejob(resources={"gpus": 0})
    assert preflight_run(on_cpu, DATA, given.SETTINGS)["spec"]["resources"] == {"gpus": 0}


def test_a_model_of_method_full_is_judged_as_a_model() -> None:
    artifact = given.artifact(ArtifactKind.MODEL)
    spec = eval_run(given.finetunejob(), artifact, given.receipt(), given.SETTINGS)["spec"]
    assert spec["mergedModel"] == {"uri": artifact.uri, "digest": artifact.digest}
    assert "adapter" not in spec


def test_an_evaluation_waits_in_the_jobs_queue() -> None:
    job = given.finetunejob(labels={"kueue.x-k8s.io/queue-name": "team-queue"})
    labels = preflight_run(job, DATA, given.SETTINGS)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "team-queue"


def test_the_longest_job_name_still_gives_a_name_for_both_runs() -> None:
    job = given.finetunejob("j" * 40)
    made = [
        preflight_run(job, DATA, given.SETTINGS),
        eval_run(job, given.artifact(), None, given.SETTINGS),
    ]
    assert all(len(each["metadata"]["name"]) <= 52 for each in made)


def suites_with_platform(*suites: dict[str, Any]) -> list[dict[str, Any]]:
    settings = replace(
        given.SETTINGS,
        general_knowledge=GeneralKnowledge(BenchmarkSize.FAST, "pvc://tasks/mmlu"),
    )
    job = given.finetunejob(evaluation={"suites": suites})
    return list(eval_run(job, given.artifact(), None, settings)["spec"]["suites"][1:])


def test_the_platforms_benchmark_is_added_to_a_job_without_one() -> None:
    (suite,) = suites_with_platform()
    assert suite["name"] == "general-knowledge"
    assert suite["benchmark"] == {"name": "mmlu", "size": "Fast", "data": "pvc://tasks/mmlu"}


def test_the_platforms_benchmark_gives_way_to_a_jobs_own() -> None:
    assert [each["name"] for each in suites_with_platform(MMLU)] == ["mmlu"]


IMAGES = {f"TUNESMITH_{name}_IMAGE": "image:1" for name in ("TRAINER", "SERVING", "OPERATOR")}


def general_knowledge(size: str, data: str = "") -> GeneralKnowledge | None:
    chosen = {"TUNESMITH_GENERAL_KNOWLEDGE": size, "TUNESMITH_GENERAL_KNOWLEDGE_DATA": data}
    return settings_from({**IMAGES, **chosen}).general_knowledge


def test_the_platforms_benchmark_is_off_unless_it_is_chosen() -> None:
    assert settings_from(IMAGES).general_knowledge is None
    assert general_knowledge("Off", "pvc://tasks/mmlu") is None
    assert general_knowledge("Full") == GeneralKnowledge(BenchmarkSize.FULL)


@pytest.mark.parametrize(("size", "data"), [("full", ""), ("Full", "/mnt/tasks")])
def test_an_unusable_choice_is_named_at_start(size: str, data: str) -> None:
    with pytest.raises(SystemExit, match="TUNESMITH_GENERAL_KNOWLEDGE"):
        general_knowledge(size, data)


def test_the_memory_of_a_gpu_is_the_platforms_to_say() -> None:
    assert settings_from(IMAGES).gpu_memory == "80Gi"
    assert settings_from({**IMAGES, "TUNESMITH_GPU_MEMORY": "141Gi"}).gpu_memory == "141Gi"
    with pytest.raises(SystemExit, match="TUNESMITH_GPU_MEMORY is 'much'"):
        settings_from({**IMAGES, "TUNESMITH_GPU_MEMORY": "much"})
