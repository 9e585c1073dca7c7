"""Reads an AdapterDeployment, its children, and the jobs whose adapters it selects, live."""

from __future__ import annotations

import asyncio

from tunesmith.adapterdeployment.decision import Observed, Replica
from tunesmith.adapterdeployment.objects import SERVES, Role, child_name
from tunesmith.adapterdeployment.selection import selector_labels
from tunesmith.api.adapterdeployment import AdapterDeployment, GateRule, Strategy
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Kind
from tunesmith.kube import pods
from tunesmith.kube.cluster import KEDA, Cluster, Object
from tunesmith.kube.labels import is_controlled_by, owner_labels
from tunesmith.kube.pod_http import PodHttp

CHILD_KINDS = ("ConfigMap", "Service", "Deployment", "PodDisruptionBudget")


async def observe(cluster: Cluster, http: PodHttp, deployment: AdapterDeployment) -> Observed:
    namespace = deployment.metadata.namespace
    labels = owner_labels(Kind.ADAPTER_DEPLOYMENT, deployment.metadata.name)
    children: dict[tuple[str, str], Object] = {}
    foreign = []
    for kind, name in _names(deployment):
        found = await cluster.get(kind, namespace, name)
        if found and is_controlled_by(found, deployment.metadata):
            children[kind, name] = found
        elif found:
            foreign.append(f"{kind} named {name}")
    scaled = deployment.spec.autoscaling or deployment.status.autoscaled
    keda = bool(scaled) and await cluster.serves(KEDA)
    if keda:
        name = child_name(deployment)
        if found := await cluster.get("ScaledObject", namespace, name):
            children["ScaledObject", name] = found
    all_pods = await cluster.list("Pod", namespace, labels)
    serving = [each for each in all_pods if SERVES in each["metadata"]["labels"]]
    return Observed(
        deployment,
        jobs=await _jobs(cluster, deployment),
        runs=await _runs(cluster, deployment),
        children=children,
        foreign=foreign,
        keda=keda,
        replicas=list(await asyncio.gather(*(_replica(http, each) for each in serving))),
        merge_jobs=await _merge_jobs(cluster, deployment, labels),
        merge_pods=[each for each in all_pods if SERVES not in each["metadata"]["labels"]],
    )


def _names(deployment: AdapterDeployment) -> list[tuple[str, str]]:
    """Children by kind and name. Merged weights have a ConfigMap per version, applied blindly."""
    return [(kind, child_name(deployment, role)) for role in Role for kind in CHILD_KINDS]


async def _jobs(cluster: Cluster, deployment: AdapterDeployment) -> list[FineTuneJob]:
    labels = selector_labels(deployment)
    if labels is None:
        return []
    found = await cluster.list("FineTuneJob", deployment.metadata.namespace, labels)
    return [FineTuneJob.from_object(each) for each in found]


async def _runs(cluster: Cluster, deployment: AdapterDeployment) -> list[EvalRun]:
    """Only named adapters are looked up by their verdicts: jobs carry their own."""
    if all(each.gate is GateRule.NONE for each in deployment.spec.adapters.named):
        return []
    found = await cluster.list("EvalRun", deployment.metadata.namespace)
    return [EvalRun.from_object(each) for each in found]


async def _merge_jobs(
    cluster: Cluster, deployment: AdapterDeployment, labels: dict[str, str]
) -> list[Object]:
    if deployment.spec.strategy is Strategy.ADAPTERS:
        return []
    found = await cluster.list("Job", deployment.metadata.namespace, labels)
    return [each for each in found if is_controlled_by(each, deployment.metadata)]


async def _replica(http: PodHttp, pod: Object) -> Replica:
    address = pods.address(pod)
    report = await http.replica_report(address) if address else None
    return Replica(pod, report)
