"""One pass over an EvalRun: read, decide, act."""

from __future__ import annotations

from datetime import UTC, datetime

from tunesmith.api.evalrun import EvalRun
from tunesmith.evalrun.observe import observe
from tunesmith.evalrun.plan import plan
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
    run = EvalRun.from_object(raw)
    observed = await observe(cluster, pods, run)
    now = datetime.now(UTC)
    decided = plan(observed, settings, now)
    return await carry_out(cluster, Source(raw, run.status.conditions), decided, now)
