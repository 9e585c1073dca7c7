"""A bad file is refused by the API server with a sentence that says what to write instead."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tunesmith.kube.cluster import NOT_TO_BE_MERGED

from examples.demo.kubectl import Kubectl, KubectlError

Object = dict[str, Any]

GOOD: dict[str, Object] = {
    "FineTuneJob": {
        "baseModel": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "dataset": {"uri": "pvc://data/tickets.jsonl"},
        "output": {"uri": "pvc://adapters"},
    },
    "EvalRun": {
        "baseModel": {"uri": "pvc://models/llama"},
        "adapter": {"uri": "pvc://adapters/triage", "digest": "sha256:" + "0" * 64},
        "suites": [{"name": "tickets", "dataset": {"uri": "pvc://data/questions.jsonl"}}],
        "gates": [{"suite": "tickets"}],
    },
    "AdapterDeployment": {"baseModel": {"uri": "pvc://models/llama"}},
}


def manifest(kind: str, changes: Object, name: str = "bad") -> Object:
    """A good object with some fields set; the keys of ``changes`` are paths with dots."""
    spec = copy.deepcopy(GOOD[kind])
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = spec
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            node.pop(last)
        else:
            node[last] = value
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def dry_run(kubectl: Kubectl, raw: Object) -> None:
    kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(raw))


TALKS: Object = {
    "questions": "pvc://data/talks.jsonl",
    "judge": {"url": "https://judge.example.com/v1", "model": "judge"},
}
TALK: Object = {"name": "talk", "mtBench": TALKS}
FINE_TUNE_JOBS: list[tuple[Object, str]] = [
    ({"adapterName": "a@b"}, "adapterName may hold letters, digits, '-', '_' and '.'"),
    ({"baseModel": None}, "spec.baseModel: Required value"),
    ({"dataset": None}, "spec.dataset: Required value"),
    ({"baseModel.uri": "meta-llama/Llama-3.1-8B"}, "for example hf://meta-llama/"),
    ({"baseModel.uri": "hf://Llama-3.1-8B"}, "must be hf://ORGANISATION/NAME[@REVISION], pvc://"),
    ({"baseModel.uri": "https://host/model.zip"}, "that ends in .tar, .tar.gz or .tgz"),
    ({"baseModel.uri": "https://host/model.tar"}, "https:// needs a digest"),
    ({"baseModel.uri": "https://me:secret@host/model.tar"}, "a base model's uri must be"),
    (
        {"baseModel": {"uri": "pvc://models/llama", "digest": "sha256:12"}},
        "a digest must be sha256: and 64 hexadecimal digits",
    ),
    ({"baseModel.uri": "pvc://models"}, "pvc://CLAIM/FOLDER"),
    ({"baseModel.uri": "pvc://models/../other"}, "a uri must not contain '..'"),
    (
        {"baseModel": {"uri": "pvc://models/llama", "secretRef": {"name": "hub"}}},
        "secretRef is only used for hf://, s3:// and https:// sources: remove it",
    ),
    ({"dataset.uri": "gs://bucket/tickets.jsonl"}, "for example pvc://data/tickets.jsonl"),
    ({"dataset.uri": "s3://tickets.jsonl"}, "s3://BUCKET/PATH"),
    ({"dataset.uri": "https://host/tickets.jsonl"}, "https:// needs a digest"),
    ({"dataset.uri": "https://host/tickets.jsonl?key=1"}, "https://HOST/PATH without user and"),
    (
        {"dataset": {"uri": "configmap://small/rows.jsonl", "secretRef": {"name": "hub"}}},
        "secretRef is only used for hf://, s3:// and https:// sources",
    ),
    ({"dataset.uri": "configmap://small"}, "configmap://NAME/KEY"),
    ({"dataset.format": "Chat"}, 'supported values: "Auto", "Messages", "ShareGPT", "Alpaca"'),
    (
        {"dataset.decontaminateAgainst": ["hf://datasets/org/rows/a.jsonl"]},
        "dataset.decontaminateAgainst takes pvc://CLAIM/PATH or configmap://NAME/KEY",
    ),
    ({"dataset.decontaminateAgainst": ["pvc://data/../x"]}, "a uri must not contain '..'"),
    (
        {"dataset.decontaminateAgainst": [f"pvc://data/{number}" for number in range(9)]},
        "must have at most 8 items",
    ),
    (
        {"dataset.nearDuplicates": {"similarity": 0.2}},
        "nearDuplicates.similarity must be between 0.5 and 1; 0.8 is usual",
    ),
    ({"dataset.maxLostTokens": 2}, "dataset.maxLostTokens must be between 0 and 1"),
    ({"dataset.review": {"examples": 0}}, "review.examples must be between 1 and 1000"),
    (
        {"dataset.heldOut": {"fraction": 0.01}},
        "heldOut.fraction must be between 0.1 and 0.5; at least a tenth of the data must stay",
    ),
    ({"method": "lora"}, 'supported values: "Auto", "LoRA", "QLoRA", "DoRA", "QDoRA", "Full"'),
    ({"backend": "Unsloth", "method": "DoRA"}, "Unsloth trains LoRA or QLoRA on exactly one GPU"),
    ({"backend": "Unsloth", "resources": {"gpus": 2}}, "set resources.gpus to 1"),
    ({"backend": "Unsloth", "resources": {"nodes": 2}}, "set resources.gpus to 1"),
    (
        {"lora": {"initLoraWeights": "PiSSA"}},
        'supported values: "Default", "Gaussian", "Orthogonal"',
    ),
    ({"lora": {"rank": 0}}, "lora.rank must be between 1 and 512; start at 16"),
    ({"lora": {"rank": 1024}}, "lora.rank must be between 1 and 512"),
    ({"lora": {"alpha": 0}}, "lora.alpha must be between 1 and 2048; use rank or twice"),
    ({"lora": {"dropout": 1}}, "lora.dropout must be between 0 and 0.9"),
    ({"lora": {"targetModules": []}}, "should have at least 1 items"),
    (
        {"lora": {"targetModules": ["q_proj", "lm_head"]}},
        "must not name lm_head or embed_tokens: vLLM cannot serve such an adapter",
    ),
    ({"training": {"epochs": 0}}, "training.epochs must be between 1 and 100; 1 to 5 is usual"),
    ({"training": {"learningRate": 0}}, "must be above 0 and at most 0.1; 0.0002 suits LoRA"),
    ({"training": {"learningRate": 2}}, "must be above 0 and at most 0.1"),
    ({"training": {"warmupRatio": 0.9}}, "training.warmupRatio must be between 0 and 0.5"),
    ({"training": {"maxLength": 4}}, "training.maxLength must be between 16 and 131072"),
    (
        {"training": {"batchSize": 8, "microBatchSize": 3}},
        "training.batchSize must be a multiple of training.microBatchSize, for example 8 and 2",
    ),
    ({"output.uri": f"pvc://adapters/{'x' * 200}"}, "spec.output.uri: Too long"),
    ({"output.uri": "hf://org/adapters"}, "output.uri must be pvc://CLAIM[/FOLDER] or s3://"),
    (
        {"output": {"uri": "pvc://adapters", "secretRef": {"name": "store"}}},
        "secretRef is only used for hf://, s3:// and https:// sources",
    ),
    (
        {"output.oci": {"reference": "registry.example.com/triage"}},
        "output.oci.reference must be REGISTRY[:PORT]/REPOSITORY:TAG",
    ),
    (
        {"training": {"parallelism": "FSDP2", "optimizer": "AdamW8bit"}},
        "training.parallelism FSDP2 needs optimizer AdamW",
    ),
    ({"training": {"microBatchSize": 0}}, "training.microBatchSize must be between 1 and 1024"),
    ({"training": {"checkpointMinutes": 0}}, "training.checkpointMinutes must be between 1"),
    ({"training": {"earlyStoppingPatience": 0}}, "training.earlyStoppingPatience must be between"),
    ({"training": {"optimizer": "Lion"}}, 'supported values: "Auto", "AdamW", "AdamW8bit"'),
    ({"training": {"parallelism": "FSDP"}}, 'supported values: "Auto", "DDP", "FSDP2"'),
    ({"evaluation": {"metric": "F1"}}, '"ExactMatch", "Accuracy", "MacroF1", "TokenF1"'),
    ({"evaluation": {"metric": "Rating"}}, "metric Rating is what MT-Bench has"),
    ({"evaluation": {"preflight": "No"}}, 'supported values: "Skip", "Advise", "Require"'),
    ({"evaluation": {"maxRetries": 9}}, "evaluation.maxRetries must be between 1 and 5"),
    (
        {"evaluation": {"suites": [{"name": "held-out", "benchmark": {}}]}},
        "evaluation.suites must not be named held-out",
    ),
    (
        {"evaluation": {"suites": [TALK, TALK | {"name": "more"}]}},
        "at most one of evaluation.suites may have mtBench",
    ),
    (
        {"evaluation": {"gates": [{"suite": "mmlu"}]}},
        "every evaluation.gates[].suite must be the name of one of evaluation.suites",
    ),
    (
        {"evaluation": {"promptedBase": False, "systemPrompts": ["Be brief."]}},
        "evaluation.systemPrompts are only used with promptedBase: true",
    ),
    ({"evaluation": {"maxItems": 1}}, "evaluation.maxItems must be between 2 and 100000"),
    ({"resources": {"gpus": -1}}, "resources.gpus must be between 0 and 16"),
    ({"resources": {"gpus": 17}}, "resources.gpus must be between 0 and 16"),
    ({"resources": {"nodes": 0}}, "resources.nodes must be between 1 and 64"),
    ({"resources": {"gpus": 0, "nodes": 5}}, "resources.nodes may be at most 4 without GPUs"),
    ({"resources": {"gpuMemory": "a lot"}}, "must be a Kubernetes quantity such as 500m, 2 or"),
    ({"reportTo": [{"kind": "MLflow"}]}, "reportTo.uri is needed for MLflow and WandB"),
    ({"reportTo": [{"kind": "MLflow", "uri": "mlflow:5000"}]}, "must be an http:// or https://"),
    ({"ttlSecondsAfterFinished": -1}, "ttlSecondsAfterFinished must be 0 or more seconds"),
    ({"resources": {"memory": "a lot"}}, "must be a Kubernetes quantity such as 500m, 2 or 16Gi"),
    ({"backoffLimit": -1}, "backoffLimit must be between 0 and 100"),
    ({"activeDeadlineSeconds": 0}, "activeDeadlineSeconds must be at least 1 second"),
    (
        {"podTemplate": {"env": [{"name": "MY-VARIABLE", "value": "1"}]}},
        "an environment variable's name may hold letters, digits and underscores",
    ),
    (
        {"podTemplate": {"labels": {"tunesmith.dev/finetunejob": "other"}}},
        "podTemplate.labels must not use the prefix tunesmith.dev/",
    ),
    ({"podTemplate": {"tolerations": [{"operator": "Is"}]}}, 'supported values: "Exists", "Equal"'),
    ({"learningRate": 0.1}, 'unknown field "spec.learningRate"'),
]

DIGEST = "sha256:" + "0" * 64
TICKETS: Object = {"name": "tickets", "dataset": {"uri": "pvc://data/questions.jsonl"}}
CHOICES: Object = {"uri": "pvc://data/choices.jsonl", "format": "MultipleChoice"}
EVAL_RUNS: list[tuple[Object, str]] = [
    ({"adapter.digest": "latest"}, "a digest must be sha256: and 64 hexadecimal digits"),
    ({"adapter.uri": "hf://org/adapter"}, "adapter.uri must be pvc://CLAIM/FOLDER or s3://"),
    ({"suites": []}, "should have at least 1 items"),
    (
        {"gates": [{"suite": "tikets"}]},
        "every gates[].suite must be the name of one of the suites",
    ),
    ({"gates": [{"suite": "tickets", "minimumDifference": 300}]}, "between -100 and 100"),
    (
        {"suites": [{"name": "Tickets!", "dataset": {"uri": "pvc://d/q.jsonl"}}]},
        "a suite's name may hold lower-case letters",
    ),
    ({"adapter": {"job": "triage", "digest": DIGEST}}, "adapter needs either job"),
    ({"adapter": {"uri": "pvc://adapters/triage"}}, "adapter needs either job"),
    (
        {"mergedModel": {"uri": "pvc://models/merged", "digest": DIGEST}},
        "name adapter or mergedModel, not both",
    ),
    ({"adapter": None}, "gates compare something with the base model"),
    (
        {"gates": [{"suite": "tickets", "onInconclusive": "Maybe"}]},
        'supported values: "Fail", "Pass", "Extend"',
    ),
    (
        {"suites": [{"name": "tickets"}]},
        "a suite must have exactly one of dataset, benchmark and mtBench",
    ),
    (
        {"suites": [{"name": "tickets", "benchmark": {}, "metric": "Accuracy"}]},
        "metric is only used with dataset",
    ),
    (
        {"suites": [{"name": "tickets", "benchmark": {"name": "../mmlu"}}]},
        "benchmark.name must be the name of a task or group",
    ),
    (
        {"suites": [{"name": "tickets", "benchmark": {"data": "s3://tasks"}}]},
        "benchmark.data must be pvc://CLAIM/PATH",
    ),
    (
        {"suites": [{**TICKETS, "promptedBase": {"systemPrompts": ["Be brief."]}}]},
        "promptedBase needs rows that are not asked",
    ),
    (
        {"suites": [{**TICKETS, "metric": "Rating"}]},
        "metric Rating is what MT-Bench has",
    ),
    (
        {
            "suites": [
                {"name": "tickets", "mtBench": TALKS | {"judge": {"url": "judge", "model": "j"}}}
            ]
        },
        "judge.url must begin with http:// or https://",
    ),
    (
        {"suites": [{"name": "tickets", "mtBench": TALKS}, {"name": "more", "mtBench": TALKS}]},
        "at most one of the suites may have mtBench",
    ),
    (
        {"outputUri": "pvc://reports", "outputSecretRef": {"name": "store"}},
        "outputSecretRef is only used with an s3:// outputUri or baseResultsUri",
    ),
    (
        {"suites": [{"name": "tickets", "dataset": {"uri": "https://host/questions.jsonl"}}]},
        "https:// needs a digest",
    ),
    (
        {"suites": [{"name": "tickets", "dataset": CHOICES | {"heldOut": {}}}]},
        "heldOut is only used with conversations",
    ),
]

NAMED: Object = {"name": "a", "uri": "pvc://adapters/a", "digest": DIGEST}
ADAPTER_DEPLOYMENTS: list[tuple[Object, str]] = [
    ({"baseModel.uri": "Llama"}, "must be hf://ORGANISATION/NAME[@REVISION] or"),
    ({"baseModel.uri": "s3://models/llama"}, "a served base model's uri must be hf://"),
    ({"servedModelName": "my model"}, "servedModelName may hold letters, digits"),
    ({"replicas": -1}, "replicas must be between 0 and 1000"),
    ({"maxModelLength": 1}, "maxModelLength must be at least 16 tokens"),
    ({"adapters.named": [NAMED | {"name": "a@b"}]}, "an adapter's name may hold letters"),
    ({"adapters.named": [NAMED | {"uri": "s3://b/a"}]}, "an adapter's uri must be pvc://"),
    ({"adapters.named": [NAMED | {"uri": "pvc://a/../b"}]}, "must not contain '..'"),
    ({"adapters.named": [NAMED | {"digest": "sha256:12"}]}, "digest must be sha256: and 64"),
    ({"adapters.named": [NAMED, NAMED]}, "Duplicate value"),
    ({"podTemplate.imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
    ({"adapters.pins": [{"name": "a", "version": "1"}]}, "the 12 hexadecimal digits that status"),
    ({"adapters.canary": {"weight": 100}}, "canary.weight must be between 1 and 99"),
    ({"adapters.deleteFiles": "yes"}, "must be of type boolean"),
    ({"adapters.keepVersions": 11}, "keepVersions must be between 0 and 10"),
    ({"server.maxLoraRank": 24}, "server.maxLoraRank must be one of 1, 8, 16, 32, 64"),
    ({"server.maxLoras": 0}, "server.maxLoras must be between 1 and 256"),
    ({"server.arguments": {"host": "0.0.0.0"}}, "server.arguments may hold: block-size"),
    ({"server.arguments": {"enable-lora": "false"}}, "server.arguments may hold: block-size"),
    ({"server.arguments": {"trust-remote-code": "true"}}, "server.arguments may hold: block-size"),
    ({"server.arguments": {"load-format": "pt"}}, "others read pickles, which can carry programs"),
    ({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "must not be larger than"),
    ({"strategy": "Merged", "baseReplicas": 1}, "baseReplicas must be 0 with strategy Merged"),
    ({"strategy": "Both"}, 'supported values: "Adapters", "Merged", "Auto"'),
]

CASES = [
    *(("FineTuneJob", *case) for case in FINE_TUNE_JOBS),
    *(("EvalRun", *case) for case in EVAL_RUNS),
    *(("AdapterDeployment", *case) for case in ADAPTER_DEPLOYMENTS),
]


@pytest.mark.parametrize("kind", GOOD)
def test_the_good_object_that_the_bad_ones_are_made_from_is_admitted(
    default_namespace: Kubectl, kind: str
) -> None:
    dry_run(default_namespace, manifest(kind, {}, name="good"))


@pytest.mark.parametrize(("kind", "changes", "sentence"), CASES)
def test_a_bad_spec_is_refused_with_a_sentence(
    default_namespace: Kubectl, kind: str, changes: Object, sentence: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        dry_run(default_namespace, manifest(kind, changes))
    assert sentence in str(refusal.value)


def test_what_cannot_be_merged_is_answered_with_the_words_by_which_a_refusal_is_known(
    default_namespace: Kubectl,
) -> None:
    secrets = [{"name": "twice"}, {"name": "twice"}]
    labels = {"app": "any"}
    spec = {"imagePullSecrets": secrets, "containers": [{"name": "any", "image": "any"}]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "any"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    with pytest.raises(KubectlError) as refusal:
        default_namespace.run(
            "apply", "--server-side", "--dry-run=server", "-f", "-", stdin=json.dumps(deployment)
        )
    assert NOT_TO_BE_MERGED in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("FineTuneJob", "a" * 41, "metadata.name becomes the name under which the adapter is"),
        ("FineTuneJob", "triage.v2", "use at most 40 lower-case letters, digits and '-'"),
        ("EvalRun", "9lives", "beginning with a letter"),
        ("AdapterDeployment", "b" * 46, "metadata.name becomes the name of a Service"),
    ],
)
def test_a_name_that_would_not_fit_its_children_is_refused(
    default_namespace: Kubectl, kind: str, name: str, sentence: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        dry_run(default_namespace, manifest(kind, {}, name=name))
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "patch", "sentence"),
    [
        *(
            ("FineTuneJob", patch, "the spec of a FineTuneJob cannot be changed (but for suspend")
            for patch in (
                {"training": {"epochs": 4}},
                {"dataset": {"review": {"required": True}}},
                {"resources": {"nodes": 2}},
                {"activeDeadlineSeconds": 60},
                {"adapterName": "other"},
                {"suspend": True, "backoffLimit": 9},
            )
        ),
        ("EvalRun", {"backoffLimit": 9}, "the spec of an EvalRun cannot be changed"),
        (
            "AdapterDeployment",
            {"baseModel": {"uri": "pvc://models/other"}},
            "baseModel of an AdapterDeployment cannot be changed",
        ),
    ],
)
def test_what_must_not_change_later_cannot(
    kubectl: Kubectl, kind: str, patch: Object, sentence: str
) -> None:
    kubectl.apply(manifest(kind, {}, name="first"))
    with pytest.raises(KubectlError) as refusal:
        kubectl.run("patch", kind, "first", "--type=merge", "-p", json.dumps({"spec": patch}))
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    "patch", [{"suspend": True}, {"ttlSecondsAfterFinished": 86400}, {"suspend": False}]
)
def test_a_job_can_be_suspended_and_given_a_time_to_live(kubectl: Kubectl, patch: Object) -> None:
    kubectl.apply(manifest("FineTuneJob", {}, name="first"))
    kubectl.run("patch", "finetunejob", "first", "--type=merge", "-p", json.dumps({"spec": patch}))
    spec = kubectl.get("finetunejob", "first")["spec"]
    assert {key: spec[key] for key in patch} == patch


def test_an_adapterdeployment_can_be_scaled(kubectl: Kubectl) -> None:
    kubectl.apply(manifest("AdapterDeployment", {}, name="serving"))
    kubectl.run("scale", "adapterdeployment", "serving", "--replicas=3")
    assert kubectl.get("adapterdeployment", "serving")["spec"]["replicas"] == 3


def test_kubectl_explain_teaches(default_namespace: Kubectl) -> None:
    text = default_namespace.run("explain", "finetunejob.spec.method")
    assert "trains small matrices beside the frozen" in " ".join(text.split())


@pytest.mark.parametrize(
    "file",
    [
        "examples/finetune.yaml",
        "examples/training.yaml",
        "examples/evalrun.yaml",
        "examples/evaluation.yaml",
        "examples/serving.yaml",
        "examples/stores.yaml",
    ],
)
def test_the_examples_are_admitted(default_namespace: Kubectl, file: str) -> None:
    default_namespace.run("apply", "--dry-run=server", "-f", file)
