"""Reads an AdapterDeployment, its children, and the jobs whose adapters it selects, live."""

from __future__ import annotations

import asyncio
import json
import re

from pydantic import ValidationError

from tunesmith.adapterdeployment.decision import Observed, Replica
from tunesmith.adapterdeployment.objects import SERVES, Role, child_name, config_map_of
from tunesmith.adapterdeployment.selection import selector_labels
from tunesmith.api.adapter_selection import GateRule
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Kind
from tunesmith.kube import pods
from tunesmith.kube.cluster import KEDA, ApiError, Object
from tunesmith.kube.labels import is_controlled_by, owner_labels
from tunesmith.kube.parsing import readable
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.policies import Defaults
from tunesmith.kube.reader import Reader

CHILD_KINDS = ("ConfigMap", "Service", "Deployment", "PodDisruptionBudget")


#: Phases of pods that hold nothing any more; their address may be another pod's by now.
ENDED = {"Failed", "Succeeded"}

Children = dict[tuple[str, str], Object]


async def observe(
    cluster: Reader, http: PodHttp, deployment: AdapterDeployment, given: Defaults
) -> Observed:
    namespace = deployment.metadata.namespace
    labels = owner_labels(Kind.ADAPTER_DEPLOYMENT, deployment.metadata.name)
    children: Children = {}
    foreign = []
    for kind, name in _names(deployment):
        found = await cluster.get(kind, namespace, name)
        if found and is_controlled_by(found, deployment.metadata):
            children[kind, name] = found
        elif found:
            foreign.append(f"{kind} named {name}")
    keda = await _is_keda_there(cluster, deployment)
    if keda:
        children |= await _scaled_object(cluster, deployment)
    children |= await _configuration_in_use(cluster, deployment, children)
    all_pods = await cluster.list("Pod", namespace, labels)
    serving = [
        each
        for each in all_pods
        if SERVES in each["metadata"]["labels"] and pods.phase(each) not in ENDED
    ]
    return Observed(
        deployment,
        jobs=await _jobs(cluster, deployment),
        runs=await _runs(cluster, deployment),
        children=children,
        foreign=foreign,
        given=given,
        keda=keda,
        replicas=list(await asyncio.gather(*(_replica(http, each) for each in serving))),
        jobs_of_ours=await _jobs_of_ours(cluster, deployment, labels),
        served_elsewhere=await _served_elsewhere(cluster, deployment),
        job_pods=[each for each in all_pods if SERVES not in each["metadata"]["labels"]],
    )


def _names(deployment: AdapterDeployment) -> list[tuple[str, str]]:
    """Children by kind and name. Of a base server that is not wanted only its Deployment matters,
    which may be left to be scaled down."""
    kinds = {
        Role.ADAPTERS: CHILD_KINDS,
        Role.BASE: CHILD_KINDS if deployment.spec.base_replicas else ("Deployment",),
    }
    return [(kind, child_name(deployment, role)) for role in Role for kind in kinds[role]]


async def _is_keda_there(cluster: Reader, deployment: AdapterDeployment) -> bool:
    """Only looked up when it matters."""
    matters = deployment.spec.autoscaling or deployment.status.autoscaled
    return bool(matters) and await cluster.serves(KEDA)


async def _scaled_object(cluster: Reader, deployment: AdapterDeployment) -> Children:
    name = child_name(deployment)
    try:
        found = await cluster.get("ScaledObject", deployment.metadata.namespace, name)
    except ApiError as error:
        if error.status == 403:
            # The chart grants the right together with the address of a Prometheus.
            return {}
        raise
    return {("ScaledObject", name): found} if found else {}


async def _configuration_in_use(
    cluster: Reader, deployment: AdapterDeployment, children: Children
) -> Children:
    """Merged weights have a ConfigMap for each version; this is that of the running pods."""
    running = children.get(("Deployment", child_name(deployment)))
    name = config_map_of(running)
    if name is None or ("ConfigMap", name) in children:
        return {}
    found = await cluster.get("ConfigMap", deployment.metadata.namespace, name)
    return {("ConfigMap", name): found} if found else {}


async def _jobs(cluster: Reader, deployment: AdapterDeployment) -> list[FineTuneJob]:
    labels = selector_labels(deployment)
    if labels is None:
        return []
    found = await cluster.list("FineTuneJob", deployment.metadata.namespace, labels)
    return readable(FineTuneJob.from_object, found)


async def _runs(cluster: Reader, deployment: AdapterDeployment) -> list[EvalRun]:
    """Only named adapters are looked up by their verdicts: jobs carry their own."""
    if all(each.gate is GateRule.NONE for each in deployment.spec.adapters.named):
        return []
    found = await cluster.list("EvalRun", deployment.metadata.namespace)
    return readable(EvalRun.from_object, found)


async def _served_elsewhere(cluster: Reader, deployment: AdapterDeployment) -> frozenset[str]:
    """Digests that other AdapterDeployments of the namespace serve."""
    if not deployment.spec.adapters.delete_files:
        return frozenset()
    found = await cluster.list("AdapterDeployment", deployment.metadata.namespace)
    others = [each for each in found if each["metadata"]["uid"] != deployment.metadata.uid]
    return frozenset(digest for each in others for digest in _digests_served_by(each))


def _digests_served_by(raw: Object) -> list[str]:
    """Of one that cannot be read, whatever looks like it: files are not deleted on a guess."""
    try:
        return [each.digest for each in AdapterDeployment.from_object(raw).status.adapters]
    except ValidationError:
        return re.findall("sha256:[0-9a-f]{64}", json.dumps(raw.get("status")))


async def _jobs_of_ours(
    cluster: Reader, deployment: AdapterDeployment, labels: dict[str, str]
) -> list[Object]:
    found = await cluster.list("Job", deployment.metadata.namespace, labels)
    return [each for each in found if is_controlled_by(each, deployment.metadata)]


async def _replica(http: PodHttp, pod: Object) -> Replica:
    address = pods.address(pod)
    report = await http.replica_report(address) if address else None
    return Replica(pod, report)
