"""One pass over an AdapterDeployment: read, decide, act."""

from __future__ import annotations

from datetime import UTC, datetime

from tunesmith.adapterdeployment.observe import observe
from tunesmith.adapterdeployment.plan import plan
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.kube.cluster import Cluster
from tunesmith.kube.pod_http import PodHttp
from tunesmith.kube.reconcile import Source, carry_out
from tunesmith.kube.workqueue import Key, Pass
from tunesmith.settings import Settings


async def reconcile(cluster: Cluster, pods: PodHttp, settings: Settings, key: Key) -> Pass:
    raw = await cluster.get(key.kind, key.namespace, key.name)
    if raw is None:
        return Pass(forget=True)
    if "deletionTimestamp" in raw["metadata"]:
        return Pass()
    deployment = AdapterDeployment.from_object(raw)
    observed = await observe(cluster, pods, deployment)
    now = datetime.now(UTC)
    decided = plan(observed, settings, now)
    return await carry_out(cluster, Source(raw, deployment.status.conditions), decided, now)
