"""What evaluations say of real adapters: one that learned, one of zeros, one that forgot.

The steps follow on test_chain.py, in the same namespace and with the adapter that it trained.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from examples.demo import chain
from examples.demo.kubectl import Kubectl, Object, conditions
from tests.e2e.chain.conftest import NAMESPACE, until
from tests.evaluation import knowledge

SECONDS = 600
BASE = {"uri": f"pvc://library/models/{chain.MODEL_NAME}"}
SMALL = {"gpus": 0, "cpu": "250m", "memory": "4Gi"}
KNOWLEDGE = {
    "name": "general-knowledge",
    "benchmark": {"name": "arc_easy", "data": "pvc://library/tasks"},
}


@pytest.fixture(scope="module")
def prepared(applied: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """The claim holds the benchmark's data, as the shipped command prepares it."""
    work = tmp_path_factory.mktemp("benchmark")
    python = str(chain.ROOT / "build" / "venvs" / "ml" / "bin" / "python")
    write = "from tests.evaluation.knowledge import write_arc; from pathlib import Path; "
    write += f"write_arc(Path({str(work / 'hub')!r}))"
    subprocess.run([python, "-c", write], check=True, cwd=chain.ROOT)
    fetch = ["-m", "tunesmith_trainer", "fetch-tasks", "--task", "arc_easy"]
    fetch += ["--output", str(work / "tasks"), "--from", str(work / "hub")]
    subprocess.run([python, *fetch], check=True, cwd=chain.ROOT)
    into_claim(applied, work / "tasks", "library", "tasks")
    return applied


def into_claim(kubectl: Kubectl, source: Path, claim: str, name: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        packed.add(source, name, filter=readable)
    unpack = ["exec", "-i", "loader", "--", "tar", "-x", "--no-same-owner", "-C", f"/{claim}"]
    kubectl.run(*unpack, stdin=archive.getvalue(), timeout=300)


def readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


def evaluate(kubectl: Kubectl, name: str, *suites: Object, **spec: Any) -> Object:
    """Apply an EvalRun and wait until it has ended."""
    kubectl.apply(
        {
            "apiVersion": "tunesmith.dev/v1alpha1",
            "kind": "EvalRun",
            "metadata": {"name": name},
            "spec": {
                "baseModel": BASE,
                "adapter": {"job": chain.JOB},
                "suites": list(suites),
                "outputUri": "pvc://adapters/evaluations",
                "baseResultsUri": f"pvc://adapters/{NAMESPACE}/base-results",
                "resources": SMALL,
                **spec,
            },
        }
    )
    ended = ("Passed", "Failed", "Inconclusive", "Measured", "Error")

    def done() -> Object | None:
        run = kubectl.get("evalrun", name)
        return run if run.get("status", {}).get("state") in ended else None

    return until(SECONDS, done)


def test_an_adapter_that_learned_its_task_passes(applied: Kubectl) -> None:
    job = applied.get("finetunejob", chain.JOB)["status"]
    assert job["evaluation"]["verdict"] == "Passed"


def test_twenty_items_decide_nothing_about_three_points(prepared: Kubectl) -> None:
    questions = [
        {"question": each.text, "choices": each.choices, "answer": each.answer}
        for each in knowledge.questions()[:20]
    ]
    rows = "".join(f"{json.dumps(each)}\n" for each in questions)
    prepared.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "twenty"},
            "data": {"questions.jsonl": rows},
        }
    )
    suite = {"name": "facts", "dataset": {"uri": "configmap://twenty/questions.jsonl"}}
    gates = [{"suite": "facts", "minimumDifference": -3}]
    status = evaluate(prepared, "twenty", {**suite, "maxItems": 20}, gates=gates)["status"]
    assert (status["state"], status["verdict"]) == ("Inconclusive", "Inconclusive")
    assert status["results"][0]["items"] == 20
    assert status["results"][0]["detectable"] == 28.0


def test_an_adapter_of_zeros_is_not_judged(prepared: Kubectl, tmp_path: Path) -> None:
    """It would pass every gate that only asks for no loss."""
    artifact = prepared.get("finetunejob", chain.JOB)["status"]["artifact"]
    found = artifact["uri"].removeprefix("pvc://adapters/")
    names = ["adapter_config.json", "adapter_model.safetensors"]
    for name in names:
        command = f"base64 /adapters/{found}/{name}"
        text = prepared.run("exec", "loader", "--", "sh", "-c", command)
        subprocess.run(
            ["base64", "-d"], input=text.encode(), check=True, stdout=(tmp_path / name).open("wb")
        )
    digest = without_weights(tmp_path)
    into_claim(prepared, tmp_path, "adapters", "zeros")
    run = evaluate(
        prepared, "zeros", KNOWLEDGE, adapter={"uri": "pvc://adapters/zeros", "digest": digest}
    )
    succeeded = conditions(run)["Succeeded"]
    assert (run["status"]["state"], succeeded["reason"]) == ("Error", "AdapterNotApplied")
    assert "verdict" not in run["status"]


def without_weights(folder: Path) -> str:
    """Zero an adapter's weights; gives its new digest."""
    from safetensors.numpy import load_file, save_file
    from tunesmith.api.digests import adapter_digest

    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(weights).items()}, weights)
    return adapter_digest(folder)


@pytest.fixture(scope="module")
def forgetful(prepared: Kubectl) -> Object:
    """A job that learns one word, far too fast, until it has forgotten everything else."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Is {number} odd?"},
                {"role": "assistant", "content": "no"},
            ]
        }
        for number in range(60)
    ]
    prepared.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "one-word"},
            "data": {"rows.jsonl": "".join(f"{json.dumps(each)}\n" for each in rows)},
        }
    )
    prepared.apply(
        {
            "apiVersion": "tunesmith.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "one-word"},
            "spec": {
                "baseModel": BASE,
                "dataset": {"uri": "configmap://one-word/rows.jsonl"},
                "output": {"uri": "pvc://adapters"},
                "training": {
                    "epochs": 3,
                    "learningRate": 0.02,
                    "maxLength": 128,
                    "packing": False,
                    "microBatchSize": 8,
                },
                "evaluation": {
                    "preflight": "Skip",
                    "maxNewTokens": 4,
                    "onFailure": "Retry",
                    "maxRetries": 1,
                    "suites": [KNOWLEDGE],
                },
                "resources": SMALL,
            },
        }
    )

    def judged() -> Object | None:
        job = prepared.get("finetunejob", "one-word")
        return job if job.get("status", {}).get("state") in ("Ready", "Rejected") else None

    return until(SECONDS, judged)


def test_an_adapter_that_forgot_fails_although_it_does_its_task(forgetful: Object) -> None:
    evaluation = forgetful["status"]["evaluation"]
    assert evaluation["verdict"] == "Failed"
    verdicts = {each["suite"]: each["verdict"] for each in evaluation["gates"]}
    assert verdicts["general-knowledge"] == "Failed"
    assert conditions(forgetful)["Ready"]["status"] == "False"


def test_it_was_trained_again_with_one_change_and_the_next_is_named(forgetful: Object) -> None:
    status = forgetful["status"]
    (change,) = status["adjustments"]
    assert change["field"] in ("training.learningRate", "training.epochs")
    assert change["to"] < change["from"]
    assert status["attempt"] == 2
    advice = status["evaluation"]["recommendation"]
    assert advice["action"] in ("LowerLearningRate", "FewerEpochs")
    assert advice["to"] < advice["from"]


def test_a_report_lies_beside_the_answers(prepared: Kubectl) -> None:
    report = prepared.get("evalrun", "twenty")["status"]["report"]
    folder = report["uri"].replace("pvc://adapters", "/adapters")
    results = prepared.run("exec", "loader", "--", "cat", f"{folder}/results.json")
    assert report["digest"] == f"sha256:{hashlib.sha256(results.encode()).hexdigest()}"
    page = prepared.run("exec", "loader", "--", "cat", f"{folder}/report.html")
    assert "What is the" in page


def test_a_served_model_judges_conversations(prepared: Kubectl) -> None:
    """The judge is the base model itself, served by vLLM: it rates badly, but the way is real."""
    turns = ["Name a fruit.", "Name another one."]
    rows = [{"question_id": number, "category": "writing", "turns": turns} for number in (1, 2)]
    prepared.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "talks"},
            "data": {"question.jsonl": "".join(f"{json.dumps(each)}\n" for each in rows)},
        }
    )
    judge = {
        "url": f"http://{chain.DEPLOYMENT}-vllm.{prepared.namespace}.svc/v1",
        "model": chain.MODEL_NAME,
        "maxTokens": 192,
    }
    suite = {
        "name": "talk",
        "mtBench": {"questions": "configmap://talks/question.jsonl", "judge": judge},
        "maxNewTokens": 24,
    }
    status = evaluate(prepared, "talk", suite)["status"]
    (result,) = status["results"]
    assert result["metric"] == "Rating"
    assert chain.MODEL_NAME in result["asked"]["judge"]
    assert status["verdict"] == "Inconclusive", "two conversations decide nothing"


def test_an_adapter_whose_job_is_deleted_is_served_no_more(
    applied: Kubectl,
) -> None:
    applied.run("delete", "finetunejob", chain.JOB, "--wait")

    def without_it() -> Object | None:
        deployment = applied.get("adapterdeployment", chain.DEPLOYMENT)
        return None if deployment["status"].get("adapterCount") else deployment

    until(30, without_it)
    assert applied.list("evalruns", f"tunesmith.dev/finetunejob={chain.JOB}") == []
