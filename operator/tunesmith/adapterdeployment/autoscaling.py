"""Replicas that follow the waiting requests: a ScaledObject of KEDA. Pure.

KEDA scales the AdapterDeployment itself, through its scale subresource, as kubectl and a
HorizontalPodAutoscaler do.
"""

from __future__ import annotations

from typing import Any

from tunesmith.adapterdeployment.objects import child_name
from tunesmith.api import API_VERSION
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.objects import Kind
from tunesmith.api.reasons import ConditionReason
from tunesmith.kube.labels import child_metadata
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings

Object = dict[str, Any]

#: Polling and cool-down as serving projects on KEDA have them (production-stack, KServe): a model
#: takes minutes to load, so replicas are not given back for every pause.
POLLING_SECONDS = 15
COOLDOWN_SECONDS = 300


def scaled_objects(
    deployment: AdapterDeployment, settings: Settings, *, keda: bool
) -> list[Object]:
    """The ScaledObject, if one was asked for and there is who reads it."""
    wanted = deployment.spec.autoscaling
    if wanted is None or unavailable(deployment, settings, keda=keda):
        return []
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": settings.prometheus_address,
            "query": waiting_requests(deployment),
            "threshold": str(wanted.waiting_requests),
        },
    }
    return [
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": child_metadata(
                Kind.ADAPTER_DEPLOYMENT, deployment.metadata, child_name(deployment)
            ),
            "spec": {
                "scaleTargetRef": {
                    "apiVersion": API_VERSION,
                    "kind": str(Kind.ADAPTER_DEPLOYMENT),
                    "name": deployment.metadata.name,
                },
                "minReplicaCount": wanted.min_replicas,
                "maxReplicaCount": wanted.max_replicas,
                "pollingInterval": POLLING_SECONDS,
                "cooldownPeriod": COOLDOWN_SECONDS,
                "triggers": [trigger],
            },
        }
    ]


def waiting_requests(deployment: AdapterDeployment) -> str:
    """Requests that wait for a replica, in Prometheus' language.

    Those that wait only for a slot for their adapter are not counted: vLLM counts them as waiting,
    and another replica would have the same slots.
    """
    pods = f'namespace="{deployment.metadata.namespace}",pod=~"{child_name(deployment)}-.*"'
    waiting = f"sum(vllm:num_requests_waiting{{{pods}}})"
    deferred = f'sum(vllm:num_requests_waiting_by_reason{{{pods},reason="deferred"}})'
    return f"{waiting} - ({deferred} or vector(0))"


def unavailable(deployment: AdapterDeployment, settings: Settings, *, keda: bool) -> Trouble | None:
    """Why autoscaling that was asked for does not happen."""
    if deployment.spec.autoscaling is None:
        return None
    if not settings.prometheus_address:
        return Trouble(
            ConditionReason.PROMETHEUS_UNKNOWN,
            "autoscaling needs to know a Prometheus: ask the platform team to set the chart's "
            "value serving.prometheusAddress. Until then replicas stay as they are.",
        )
    if not keda:
        return Trouble(
            ConditionReason.KEDA_NOT_INSTALLED,
            "autoscaling needs KEDA, which is not installed in this cluster. Until it is, replicas "
            "stay as they are.",
        )
    return None
