"""Reads an AdapterDeployment, its children, and the jobs whose adapters it selects, live."""

from __future__ import annotations

import asyncio

from tunesmith.adapterdeployment.objects import PORT, child_name, pod_labels
from tunesmith.adapterdeployment.plan import Observed, Replica
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.kube import pods
from tunesmith.kube.cluster import Cluster, Object
from tunesmith.kube.labels import is_controlled_by
from tunesmith.kube.pod_http import PodHttp

CHILD_KINDS = ("ConfigMap", "Service", "Deployment")


async def observe(cluster: Cluster, http: PodHttp, deployment: AdapterDeployment) -> Observed:
    namespace = deployment.metadata.namespace
    children = {}
    foreign = []
    for kind in CHILD_KINDS:
        found = await cluster.get(kind, namespace, child_name(deployment))
        if found and is_controlled_by(found, deployment.metadata):
            children[kind] = found
        elif found:
            foreign.append(kind)
    labels = deployment.spec.adapters.selector.match_labels
    jobs = await cluster.list("FineTuneJob", namespace, labels)
    replicas = await cluster.list("Pod", namespace, pod_labels(deployment))
    return Observed(
        deployment,
        [FineTuneJob.from_object(each) for each in jobs],
        children,
        foreign,
        list(await asyncio.gather(*(_replica(http, each) for each in replicas))),
    )


async def _replica(http: PodHttp, pod: Object) -> Replica:
    """Ask the pod itself what it offers: what it was told to load proves nothing."""
    address = pods.address(pod)
    if not address or not pods.is_ready(pod):
        return Replica(pod)
    return Replica(pod, await http.served_models(address, PORT))
