"""What plan says of a file when no cluster is asked, and with which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.commandline.connection import ApiError, refused
from tunesmith.commandline.memory_question import fit, shape_of
from tunesmith.commandline.outcome import Unreachable
from tunesmith.commandline.plan import Admission, Verdict, planned
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.planning import plan_memory
from tunesmith.memory_planner.request import PlanRequest

from tests.unit.commandline.asked import run

HUB = "hf://meta-llama/Llama-3.1-8B-Instruct"


def job(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "triage"},
        "spec": {
            "baseModel": {"uri": HUB},
            "dataset": {"uri": "pvc://data/t.jsonl"},
            "output": {"uri": "pvc://adapters"},
            **spec,
        },
    }


def plan(*objects: dict[str, Any], flags: tuple[str, ...] = ()) -> Result:
    return run("plan", "-f", "-", *flags, stdin=yaml.safe_dump_all(objects))


def figures(*objects: dict[str, Any], flags: tuple[str, ...] = ()) -> Any:
    return json.loads(plan(*objects, flags=(*flags, "-o", "json")).stdout)


def test_the_plan_is_what_the_planner_says_of_the_same_question() -> None:
    raw = job(resources={"gpus": 2, "gpuMemory": "80Gi"}, method="QLoRA")
    spec = FineTuneJobSpec.model_validate(raw["spec"])
    (told,) = figures(raw)
    from tunesmith.api.trainer_contract import Hardware

    hardware = Hardware(gpus=2, gpu_memory_bytes=80 << 30)
    shape = KNOWN_MODELS["Llama-3.1-8B"]
    expected = plan_memory(PlanRequest(shape, spec.method, spec.lora, spec.training, hardware))
    assert told["memory"]["plan"] == expected.to_json()  # type: ignore[union-attr]


def test_the_memory_of_gpus_is_the_job_s_word_then_the_flag_then_the_chart_s_default() -> None:
    said = job(resources={"gpuMemory": "141Gi"})
    small = ("--gpu-memory", "48Gi")
    sizes = [
        figures(raw, flags=flags)[0]["memory"]["plan"]["gpuMemoryBytes"] >> 30
        for raw, flags in ((said, small), (job(), small), (job(), ()))
    ]
    assert sizes == [141, 48, 80]


def test_what_cannot_fit_ends_with_1_and_with_what_would() -> None:
    done = plan(job(method="LoRA"), flags=("--gpu-memory", "16Gi"))
    assert done.exit_code == 1
    assert "DoesNotFit" in done.output
    assert "method: QLoRA" in done.output


def test_a_batch_that_cannot_be_divided_ends_with_1_and_with_one_that_can() -> None:
    done = plan(job(resources={"gpus": 3}))
    assert done.exit_code == 1
    assert "cannot be divided among 3 GPUs: use 6 or 9" in done.output


def test_what_is_no_amount_of_memory_is_told() -> None:
    done = plan(job(), flags=("--gpu-memory", "big"))
    assert done.exit_code == 1
    assert "'big' is no amount of memory" in done.output


def test_an_unknown_shape_is_no_refusal_and_says_what_to_give() -> None:
    done = plan(job(baseModel={"uri": "pvc://models/own"}))
    assert done.exit_code == 0
    assert "--model-shape" in done.output


def test_a_config_json_gives_the_shape(tmp_path: Path) -> None:
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **sizes, **heads}))
    own = job(baseModel={"uri": "pvc://models/own"})
    by_file = figures(own, flags=("--model-shape", str(path)))[0]["memory"]["plan"]
    assert by_file == figures(job())[0]["memory"]["plan"]


def test_a_model_whose_memory_nobody_can_compute_gets_the_careful_plan(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "mixtral", "num_local_experts": 8}))
    found = fit(FineTuneJobSpec.model_validate(job()["spec"]), str(path), None)
    assert found.plan is not None
    assert found.plan.predicted_peak_bytes is None
    assert "not predicted" in found.note


@pytest.mark.parametrize(
    ("uri", "known"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("hf://meta-llama/Meta-Llama-3.1-8B", "Llama-3.1-8B"),
        ("hf://meta-llama/Llama-2-7b-hf@main", "Llama-2-7B"),
        ("hf://meta-llama/Llama-3.1-80B", None),
        ("pvc://models/Llama-3.1-8B", None),
    ],
)
def test_a_known_model_is_known_by_the_hub_s_name_for_it(uri: str, known: str | None) -> None:
    found = shape_of(uri, None)
    assert (found.name if found else None) == known


def test_without_a_cluster_the_verdict_says_that_no_rule_was_asked() -> None:
    done = plan(job())
    assert done.exit_code == 0
    assert "NotAsked: no cluster is known" in done.output


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (job(metod="LoRA"), "spec.metod: there is no such field"),
        (job(training={"epoch": 3}), "spec.training.epoch: there is no such field"),
        (job(training={"epochs": "many"}), "training.epochs"),
        (job(method="Lora"), "method"),
        ({**job(), "apiVersion": "tunesmith.dev/v2"}, "apiVersion"),
    ],
)
def test_a_wrong_field_is_refused_without_a_cluster(raw: dict[str, Any], said: str) -> None:
    done = plan(raw)
    assert done.exit_code == 1
    assert "Refused" in done.output
    assert said in done.output


def test_a_file_without_anything_of_ours_is_refused() -> None:
    assert plan({"kind": "ConfigMap", "metadata": {"name": "x"}}).exit_code == 1
    assert run("plan", "-f", "-", stdin="a: [").exit_code == 1


def test_a_refused_job_is_still_planned_if_it_can_be_read() -> None:
    refusal = Admission(Verdict.REFUSED, ("no GPUs today",))
    found = planned(job(), refusal, None, None)
    assert found.fit is not None
    assert found.fit.plan is not None
    assert not found.is_good


def test_what_is_unusual_is_said() -> None:
    assert "vLLM cannot serve an adapter of method DoRA" in plan(job(method="DoRA")).output.replace(
        "\n             ", " "
    )


def test_the_sentences_of_a_refusal_come_one_by_one() -> None:
    causes = [
        {"field": "spec.lora.rank", "message": 'Invalid value: "object": lora.rank is too high'},
        {"field": "spec.name", "message": 'Invalid value: "a: b": name is too short'},
        {"field": "spec.gpus", "message": "Invalid value: 99: gpus must be fewer"},
        {"field": "<nil>", "message": "also wrong"},
        {
            "message": "ValidatingAdmissionPolicy 'a' with binding 'b' denied request: "
            "TuningPolicy support does not allow it"
        },
    ]
    body = {"message": "many mistakes", "details": {"causes": causes}}
    error = refused(422, json.dumps(body).encode())
    assert isinstance(error, ApiError)
    assert error.causes == (
        "spec.lora.rank: lora.rank is too high",
        "spec.name: name is too short",
        "spec.gpus: gpus must be fewer",
        "also wrong",
        "TuningPolicy support does not allow it",
    )


def test_a_cluster_without_tunesmith_says_so() -> None:
    assert "is Tunesmith installed" in refused(404, b"404 page not found").message


@pytest.mark.parametrize("status", [401, 500, 503])
def test_an_answer_that_is_no_verdict_is_no_refusal(status: int) -> None:
    assert isinstance(refused(status, b"upstream"), Unreachable)
