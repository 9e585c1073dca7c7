"""What TuningPolicies refuse, and with which words: the real API server says it.

Most is asked with a dry run: admission is the same, and nothing is left behind.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Kubectl, Object
from tests.cluster.policies import API, only, policy, refusal
from tests.cluster.test_stages import set_suspend, until

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


@dataclass(frozen=True)
class Tenants:
    """Two teams with a policy each and one for both, and somebody without any."""

    support: Kubectl
    sales: Kubectl
    elsewhere: Kubectl


@pytest.fixture(scope="module")
def tenants() -> Iterator[Tenants]:
    suffix = uuid.uuid4().hex[:6]
    names = ("support", "sales", "elsewhere")
    found = Tenants(*(create_namespace(f"{name}-{suffix}") for name in names))
    for each in (found.support, found.sales):
        each.run("label", "namespace", each.namespace, f"tenant={suffix}")
    both = {"matchLabels": {"tenant": suffix}}
    with ExitStack() as stack:
        for team, allowed in ((found.support, SUPPORT), (found.sales, SALES)):
            where = only(team.namespace)
            stack.enter_context(policy(team.namespace, namespaces=where, allowed=allowed))
        stack.enter_context(policy(f"both-{suffix}", namespaces=both, allowed=EVERYBODY))
        until(lambda: refusal(found.support, job(baseModel={"uri": "hf://other/model"})))
        until(lambda: refusal(found.sales, job(baseModel={"uri": "hf://other/model"})))
        until(lambda: refusal(found.support, job(method="DoRA")))
        yield found
    for each in (found.support, found.sales, found.elsewhere):
        each.run("delete", "namespace", each.namespace, "--wait=false")


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


# --- what is allowed -----------------------------------------------------------------------------


def suite(**asked: Any) -> list[Object]:
    return [{"name": "own", **asked}]


def judged_by(url: str) -> list[Object]:
    judge = {"url": url, "model": "judge"}
    return suite(mtBench={"questions": "configmap://mt/rows.jsonl", "judge": judge})


OTHERS = "s3://others/rows.jsonl"
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


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_allowed_is_refused_with_one_sentence(tenants: Tenants, case: str) -> None:
    wanted, sentence = REFUSED[case]
    said = refusal(tenants.support, wanted)
    assert said is not None
    assert "denied request: TuningPolicy " in said
    assert sentence in said
    assert refusal(tenants.elsewhere, wanted) is None, "no policy holds there"


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


@pytest.mark.parametrize("number", range(len(ALLOWED)))
def test_what_is_allowed_is_let_in(tenants: Tenants, number: int) -> None:
    assert refusal(tenants.support, ALLOWED[number]) is None


def test_each_tenant_has_the_limits_of_its_own_policy(tenants: Tenants) -> None:
    mistral = job(baseModel={"uri": "hf://mistralai/Mistral-7B"}, resources={"gpus": 0})
    assert refusal(tenants.sales, mistral) is None
    assert "hf://mistralai/Mistral-7B" in (refusal(tenants.support, mistral) or "")
    assert "its base models are: hf://mistralai/*" in (refusal(tenants.sales, job()) or "")
    judged = run(baseModel={"uri": "hf://mistralai/Mistral-7B"})
    assert "allows a pod at most 0 GPUs" in (refusal(tenants.sales, judged) or "")


@pytest.mark.parametrize(("method", "refused_by"), [("QLoRA", "sales-"), ("DoRA", "both-")])
def test_all_policies_that_hold_must_allow_it(
    tenants: Tenants, method: str, refused_by: str
) -> None:
    wanted = job(
        baseModel={"uri": "hf://mistralai/Mistral-7B"}, resources={"gpus": 0}, method=method
    )
    said = refusal(tenants.sales, wanted) or ""
    assert f"TuningPolicy {refused_by}" in said
    assert f"does not allow spec.method {method}" in said


def test_auto_needs_both_methods_of_which_it_chooses(tenants: Tenants) -> None:
    wanted = job(baseModel={"uri": "hf://mistralai/a"}, resources={"gpus": 0}, method="Auto")
    assert "does not allow spec.method Auto" in (refusal(tenants.sales, wanted) or "")


@pytest.mark.parametrize("kind", ["finetunejobs", "evalruns", "adapterdeployments"])
def test_the_api_server_finds_no_mistake_in_what_the_chart_gave_it(kind: str) -> None:
    checked = until(lambda: _type_checking(f"tunesmith-{kind}"))
    assert checked == {"known": True}


def _type_checking(name: str) -> Object | None:
    status = Kubectl("default").get("validatingadmissionpolicy", name).get("status", {})
    if "observedGeneration" not in status:
        return None
    return {"known": True, **status.get("typeChecking", {})}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"allowed": {"baseModels": ["hf://*/a"]}}, "one '*' at the end"),
        ({"allowed": {"maxHours": 0}}, "allowed.maxHours must be between"),
        ({"allowed": {"methods": ["Lora"]}}, 'Unsupported value: "Lora"'),
        ({"defaults": {"output": {"uri": "hf://a/b"}}}, "output.uri must be pvc://"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(spec: Object, sentence: str) -> None:
    wanted = {"apiVersion": API, "kind": "TuningPolicy", "metadata": {"name": "a"}, "spec": spec}
    assert sentence in (refusal(Kubectl("default"), wanted) or "")


def test_what_was_there_before_a_stricter_policy_stays(kubectl: Kubectl) -> None:
    """It may be suspended, resumed, labelled, scaled and deleted; only what is new is judged."""
    kubectl.apply(job(suspend=True))
    kubectl.apply(served())
    where = only(kubectl.namespace)
    nothing: Object = {"baseModels": [], "adapters": [], "methods": [], "maxGpus": 0}
    with policy(kubectl.namespace, namespaces=where, allowed=nothing):
        until(lambda: refusal(kubectl, job() | {"metadata": {"name": "later"}}))
        kubectl.run("label", "finetunejob", "asked", "team=support")
        set_suspend(kubectl, "finetunejob", "asked", False)
        set_suspend(kubectl, "finetunejob", "asked", True)
        finalizers = {"metadata": {"finalizers": ["example.com/held"]}}
        kubectl.run("patch", "finetunejob", "asked", "--type=merge", "-p", json.dumps(finalizers))
        kubectl.run("delete", "finetunejob", "asked", "--wait=false")
        released: Object = {"metadata": {"finalizers": None}}
        kubectl.run("patch", "finetunejob", "asked", "--type=merge", "-p", json.dumps(released))
        until(lambda: kubectl.find("finetunejob", "asked") is None)

        kubectl.run("scale", "adapterdeployment", "asked", "--replicas=1")
        kubectl.apply(served(baseReplicas=1, replicas=0))
        another = {"name": "two", "uri": "pvc://adapters/team/two", "digest": DIGEST}
        both = {"named": [*served()["spec"]["adapters"]["named"], another]}
        assert "spec.adapters.named[two].uri" in (refusal(kubectl, served(adapters=both)) or "")
        more = refusal(kubectl, served(resources={"gpus": 2})) or ""
        assert "at most 0 GPUs; spec.resources.gpus is 2" in more
        kubectl.apply(served(adapters={"named": []}))
        kubectl.run("delete", "adapterdeployment", "asked", "--wait=false")
