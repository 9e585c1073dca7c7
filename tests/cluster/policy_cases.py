"""Two tenants' policies, and what one of them may ask for and may not."""

from __future__ import annotations

from typing import Any

from examples.demo.kubectl import Object
from tests.cluster.policies import API

DIGEST = "sha256:" + "a" * 64

SUPPORT = {
    "baseModels": ["hf://meta-llama/*", "pvc://models/llama"],
    "datasets": ["s3://support/*", "configmap://*"],
    "adapters": ["pvc://adapters/*"],
    "destinations": [
        "s3://support-adapters/*",
        "pvc://adapters/reports",
        "oci://registry.example.com/support/*",
        "https://mlflow.example.com/*",
    ],
    "images": ["registry.example.com/*"],
    "env": ["NCCL_*"],
    "maxGpus": 4,
    "maxHours": 2,
}
SALES = {"baseModels": ["hf://mistralai/*"], "methods": ["LoRA", "DoRA"], "maxGpus": 0}
EVERYBODY = {"methods": ["LoRA", "QLoRA"]}


def manifest(kind: str, spec: Object) -> Object:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": "asked"}, "spec": spec}


def job(**changes: Any) -> Object:
    """A FineTuneJob that support may have, but for the changes."""
    spec = {
        "baseModel": {"uri": "hf://meta-llama/Llama-3.1-8B"},
        "dataset": {"uri": "s3://support/tickets.jsonl"},
        "output": {"uri": "s3://support-adapters"},
    }
    return manifest("FineTuneJob", spec | changes)


def run(**changes: Any) -> Object:
    """An EvalRun that support may have, but for the changes."""
    spec = {
        "baseModel": {"uri": "hf://meta-llama/Llama-3.1-8B"},
        "adapter": {"uri": "pvc://adapters/team/one", "digest": DIGEST},
        "suites": [{"name": "own", "dataset": {"uri": "configmap://questions/rows.jsonl"}}],
    }
    return manifest("EvalRun", spec | changes)


def served(**changes: Any) -> Object:
    """An AdapterDeployment that support may have, but for the changes."""
    named = {"name": "one", "uri": "pvc://adapters/team/one", "digest": DIGEST}
    spec = {
        "baseModel": {"uri": "hf://meta-llama/Llama-3.1-8B"},
        "adapters": {"named": [named]},
        "replicas": 0,
    }
    return manifest("AdapterDeployment", spec | changes)


def suite(**asked: Any) -> list[Object]:
    return [{"name": "own", **asked}]


def judged_by(url: str) -> list[Object]:
    judge = {"url": url, "model": "judge"}
    return suite(mtBench={"questions": "configmap://mt/rows.jsonl", "judge": judge})


OTHERS = "s3://others/rows.jsonl"
#: What support may not ask for, and what the API server says of it.
REFUSED = {
    "a model of another organisation": (
        job(baseModel={"uri": "hf://meta-llama-2/model"}),
        "spec.baseModel.uri hf://meta-llama-2/model; its base models are: hf://meta-llama/*, pvc:",
    ),
    "a model beside the one on the claim": (
        job(baseModel={"uri": "pvc://models/llama2"}),
        "spec.baseModel.uri pvc://models/llama2",
    ),
    "a dataset": (
        job(dataset={"uri": OTHERS}),
        f"spec.dataset.uri {OTHERS}; its datasets are: s3://support/*, configmap://*",
    ),
    "a set to stay apart from": (
        job(
            dataset={
                "uri": "s3://support/a.jsonl",
                "decontaminateAgainst": ["configmap://a/b", "pvc://others/test.jsonl"],
            }
        ),
        "spec.dataset.decontaminateAgainst pvc://others/test.jsonl",
    ),
    "data of a suite": (
        job(evaluation={"suites": suite(dataset={"uri": OTHERS})}),
        f"spec.evaluation.suites[own].dataset.uri {OTHERS}",
    ),
    "a folder of benchmarks": (
        job(evaluation={"suites": suite(benchmark={"data": "pvc://others/tasks"})}),
        "spec.evaluation.suites[own].benchmark.data pvc://others/tasks",
    ),
    "a judge": (
        job(evaluation={"suites": judged_by("https://mlflow.example.com.evil.org/v1")}),
        "spec.evaluation.suites[own].mtBench.judge.url https://mlflow.example.com.evil.org/v1",
    ),
    "an output": (
        job(output={"uri": "s3://support-adapters-2/x"}),
        "spec.output.uri s3://support-adapters-2/x; its destinations are: s3://support-adapters/*",
    ),
    "a registry": (
        job(
            output={
                "uri": "s3://support-adapters",
                "oci": {"reference": "registry.example.com/sales/a:1"},
            }
        ),
        "spec.output.oci.reference oci://registry.example.com/sales/a:1",
    ),
    "a server of loss curves": (
        job(reportTo=[{"kind": "WandB", "uri": "https://wandb.example.com/"}]),
        "spec.reportTo https://wandb.example.com/",
    ),
    "an image": (
        job(podTemplate={"image": "example.com/own:1"}),
        "spec.podTemplate.image example.com/own:1; its images are: registry.example.com/*",
    ),
    "an environment variable": (
        job(podTemplate={"env": [{"name": "HF_ENDPOINT", "value": "https://evil.org"}]}),
        "spec.podTemplate.env HF_ENDPOINT; its environment variables are: NCCL_*",
    ),
    "too many GPUs on several nodes": (
        job(resources={"gpus": 4, "nodes": 2}),
        "allows a job at most 4 GPUs; spec.resources asks for 8 (gpus times nodes)",
    ),
    "too long": (
        job(activeDeadlineSeconds=7201),
        "allows an attempt at most 2 hours; spec.activeDeadlineSeconds is 7201 seconds",
    ),
    "a method": (
        job(method="Full"),
        "does not allow spec.method Full; its methods are: LoRA, QLoRA",
    ),
    "a model to measure": (
        run(baseModel={"uri": "hf://other/model"}),
        "spec.baseModel.uri hf://other/model",
    ),
    "an adapter to measure": (
        run(adapter={"uri": "s3://others/adapter", "digest": DIGEST}),
        "spec.adapter.uri s3://others/adapter; its adapters are: pvc://adapters/*",
    ),
    "a merged model to measure": (
        run(adapter=None, mergedModel={"uri": "pvc://others/model", "digest": DIGEST}),
        "spec.mergedModel.uri pvc://others/model",
    ),
    "questions": (
        run(suites=suite(dataset={"uri": OTHERS})),
        f"spec.suites[own].dataset.uri {OTHERS}",
    ),
    "solved examples": (
        run(
            suites=suite(
                dataset={"uri": "configmap://a/b"}, promptedBase={"examples": {"uri": OTHERS}}
            )
        ),
        f"spec.suites[own].promptedBase.examples.uri {OTHERS}",
    ),
    "a report": (run(outputUri="pvc://others"), "spec.outputUri pvc://others"),
    "answers that are kept": (
        run(baseResultsUri="pvc://others"),
        "spec.baseResultsUri pvc://others",
    ),
    "an evaluator's image": (
        run(podTemplate={"image": "example.com/own:1"}),
        "spec.podTemplate.image example.com/own:1",
    ),
    "a model to serve": (
        served(baseModel={"uri": "pvc://models/other"}),
        "spec.baseModel.uri pvc://models/other",
    ),
    "an adapter to serve": (
        served(adapters={"named": [{"name": "a", "uri": "pvc://others/a", "digest": DIGEST}]}),
        "spec.adapters.named[a].uri pvc://others/a; its adapters are: pvc://adapters/*",
    ),
    "a server's image": (
        served(podTemplate={"image": "example.com/own:1"}),
        "spec.podTemplate.image example.com/own:1",
    ),
    "a server's variable": (
        served(podTemplate={"env": [{"name": "PYTHONPATH", "value": "/mnt"}]}),
        "spec.podTemplate.env PYTHONPATH",
    ),
    "a server's GPUs": (
        served(resources={"gpus": 8}),
        "allows a pod at most 4 GPUs; spec.resources.gpus is 8",
    ),
}
#: What support may ask for.
ALLOWED = [
    job(),
    job(output={"uri": "s3://support-adapters/team/a"}),
    job(
        output={
            "uri": "s3://support-adapters",
            "oci": {"reference": "registry.example.com/support/a:1"},
        }
    ),
    job(baseModel={"uri": "pvc://models/llama"}, method="QLoRA"),
    job(method="Auto", resources={"gpus": 2, "nodes": 2}, activeDeadlineSeconds=7200),
    job(reportTo=[{"kind": "MLflow", "uri": "https://mlflow.example.com/"}]),
    job(evaluation={"suites": judged_by("https://mlflow.example.com/v1")}),
    job(podTemplate={"image": "registry.example.com/a:1", "env": [{"name": "NCCL_DEBUG"}]}),
    run(outputUri="pvc://adapters/reports"),
    run(adapter={"job": "any"}),
    served(),
]
