"""One of every kind of pod that we make, by name: what holds of all of them is asked here."""

from __future__ import annotations

from typing import Any

from tunesmith.adapterdeployment.errands import errand_template
from tunesmith.adapterdeployment.merging import merge_job
from tunesmith.adapterdeployment.objects import pod_labels
from tunesmith.adapterdeployment.retirement import removal_job
from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.adapterdeployment.serving_pod import ServingPod, serving_pod
from tunesmith.api.objects import PodTemplate
from tunesmith.evalrun.objects import JudgedAdapter, evaluation_job
from tunesmith.finetunejob.decision import Prepared
from tunesmith.finetunejob.objects import training_job
from tunesmith.finetunejob.preparation_objects import preparation_job
from tunesmith.kube.attempts import Start
from tunesmith.kube.volumes import mount
from tunesmith.settings import Settings

from tests.unit.operator import given

HUB_MODEL = {"uri": "hf://team/tiny@main"}
FIRST = Start(1, 0)


def every_pod(
    settings: Settings = given.SETTINGS, base_model: given.Raw | None = None, **template: Any
) -> dict[str, given.Raw]:
    """Pod templates of objects with this base model and this spec.podTemplate."""
    spec: dict[str, Any] = {
        "baseModel": base_model or {"uri": given.BASE_URI},
        "podTemplate": template,
    }
    deployment = given.adapterdeployment(**spec)
    adapter = Candidate("triage", "pvc://adapters/tuned/x", given.DIGEST)
    judged = JudgedAdapter(adapter.uri, adapter.digest)
    own = deployment.spec.pod_template
    serves = ServingPod(
        pod_labels(deployment), {}, "files", [mount(adapter.uri)], own, "operator:1"
    )
    errands = errand_template(own, PodTemplate())
    batch_jobs = {
        "preparation": preparation_job(given.finetunejob(**spec), FIRST, settings),
        "training": trains(settings, **spec),
        "training on two nodes": trains(settings, resources={"gpus": 8, "nodes": 2}, **spec),
        "evaluation": evaluation_job(given.evalrun(**spec), judged, FIRST, settings),
        "merge": merge_job(deployment, adapter, FIRST, errands, settings),
        "removal": removal_job(deployment, adapter, FIRST, errands, settings),
    }
    templates = {name: each[-1]["spec"]["template"] for name, each in batch_jobs.items()}
    return {**templates, "serving": serving_pod(deployment, serves, settings)}


def trains(settings: Settings = given.SETTINGS, **spec: Any) -> list[given.Raw]:
    ready = Prepared(given.PREPARED_URI, given.receipt(), given.memory_plan())
    job = given.finetunejob(**spec)
    return training_job(job, FIRST, ready, ready.memory, settings)


def containers(pod: given.Raw) -> list[given.Raw]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
