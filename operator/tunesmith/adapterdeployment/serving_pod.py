"""The serving pod: vLLM, the sidecar that keeps it in step, the proxy that is its door. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.adapterdeployment.configuration import DRAIN_SECONDS
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import PodTemplate
from tunesmith.api.serving_contract import (
    CONFIGURATION_FOLDER,
    HUB_CACHE_FOLDER,
    KEYS_FOLDER,
    LEAVING_FILE,
    METRICS_PORT,
    PROXY_FILE,
    PROXY_PORT,
    READY_PATH,
    RUN_FOLDER,
    SIDECAR_PORT,
    START_FILE,
    STARTED_PATH,
    STARTS_FILE,
)
from tunesmith.api.trainer_contract import HUB_TOKEN_VARIABLE, SCRATCH_FOLDER
from tunesmith.kube.hub import hub_mounts, hub_variables, hub_volumes
from tunesmith.kube.pod_spec import container_resources, container_security, key_from, pod
from tunesmith.kube.volumes import Mount, volumes
from tunesmith.settings import HubAccess, Settings

Object = dict[str, Any]

SIDECAR = "sidecar"
PROXY = "proxy"
CACHE_FOLDER = "/cache"
#: What vLLM downloads itself, as the sidecar sees it.
OWN_CACHE: list[dict[str, Any]] = [{"name": "cache", "mountPath": CACHE_FOLDER, "readOnly": True}]

#: Loading a large model may take long; a pod that is not up by then is restarted.
START_SECONDS = 1800
#: Time for every node to forget a leaving pod: vLLM refuses requests once it shuts down.
PRE_STOP_SECONDS = 10

#: vLLM notes each start, so that the sidecar knows when what it had loaded is gone.
VLLM_COMMAND = (
    f"rm -f {LEAVING_FILE}; echo start >> {STARTS_FILE} && "
    f"exec python3 -m vllm.entrypoints.openai.api_server --config {START_FILE}"
)
#: From here on the proxy closes each connection after its answer, so that clients which keep
#: theirs open move to another pod.
PRE_STOP_COMMAND = f"touch {LEAVING_FILE}; sleep {PRE_STOP_SECONDS}"
#: A container that restarts makes its pod unready. The sidecar's end must not do that while vLLM
#: answers, so a shell starts it again.
SIDECAR_COMMAND = (
    'trap \'kill "$child"; wait "$child"; exit 0\' TERM; '
    'while :; do python3 -m tunesmith.sidecar & child=$!; wait "$child"; sleep 1; done'
)
PROXY_COMMAND = ["nginx", "-c", f"{CONFIGURATION_FOLDER}/{PROXY_FILE}", "-e", "stderr"]


@dataclass(frozen=True)
class ServingPod:
    """Everything that differs between one kind of serving pod and another."""

    labels: dict[str, str]
    annotations: dict[str, str]
    config_map: str
    mounts: list[Mount]
    #: With what a policy gives.
    template: PodTemplate
    #: Of sidecar and proxy.
    image: str


def serving_pod(deployment: AdapterDeployment, kind: ServingPod, settings: Settings) -> Object:
    """The pod template. Nothing in it changes when an adapter comes or goes."""
    spec = deployment.spec
    found, mounted = volumes(kind.mounts)
    hub = settings.hub if _is_on_hub(deployment) else HubAccess()
    cached = hub_mounts(hub, HUB_CACHE_FOLDER)
    container = {
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["sh", "-c", VLLM_COMMAND],
        "env": [*_environment(deployment), *hub_variables(hub, HUB_CACHE_FOLDER)],
        "ports": [{"name": "http", "containerPort": PROXY_PORT}],
        "resources": container_resources(spec.resources),
        "startupProbe": _probe(READY_PATH, period=2, failures=START_SECONDS // 2),
        "readinessProbe": _probe(READY_PATH, period=5, failures=3),
        "livenessProbe": _probe("/health", period=20, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", PRE_STOP_COMMAND]}}},
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_FOLDER},
            {"name": "cache", "mountPath": CACHE_FOLDER},
            # vLLM's processes talk through shared memory and need more than a container's 64 MiB.
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *cached,
            *mounted,
        ],
    }
    template = pod(
        kind.template,
        kind.labels,
        container,
        [*_volumes(deployment, kind), *hub_volumes(hub), *found],
        settings.pull_secrets,
        # Both start before vLLM and end after it.
        initContainers=[
            _proxy(deployment, kind.image, settings.image_pull_policy),
            _sidecar(kind.image, settings.image_pull_policy, cached or OWN_CACHE, mounted),
        ],
        terminationGracePeriodSeconds=PRE_STOP_SECONDS + DRAIN_SECONDS + 15,
    )
    template["metadata"]["annotations"] = {
        **template["metadata"].get("annotations", {}),
        **kind.annotations,
    }
    return template


def _volumes(deployment: AdapterDeployment, kind: ServingPod) -> list[Object]:
    cache = deployment.spec.model_cache
    found: list[Object] = [
        {"name": "configuration", "configMap": {"name": kind.config_map}},
        {"name": "run", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        {
            "name": "cache",
            **(
                {"persistentVolumeClaim": {"claimName": cache.claim_name}}
                if cache
                else {"emptyDir": {}}
            ),
        },
    ]
    if access := deployment.spec.access:
        # Optional: without the Secret nobody has a key and all are refused, until it is there.
        found.append(
            {"name": "keys", "secret": {"secretName": access.secret_ref.name, "optional": True}}
        )
    return found


def _proxy(deployment: AdapterDeployment, image: str, pull_policy: str) -> Object:
    mounts: list[Object] = [
        {"name": "configuration", "mountPath": CONFIGURATION_FOLDER, "readOnly": True},
        {"name": "run", "mountPath": RUN_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if deployment.spec.access:
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    return {
        "name": PROXY,
        "image": image,
        "imagePullPolicy": pull_policy,
        "restartPolicy": "Always",
        "command": PROXY_COMMAND,
        "ports": [{"name": "vllm-metrics", "containerPort": METRICS_PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }


def _sidecar(image: str, pull_policy: str, cache: list[Object], mounted: list[Object]) -> Object:
    return {
        "name": SIDECAR,
        "image": image,
        "imagePullPolicy": pull_policy,
        "restartPolicy": "Always",
        "command": ["sh", "-c", SIDECAR_COMMAND],
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "ports": [{"name": "sidecar", "containerPort": SIDECAR_PORT}],
        # vLLM starts when every adapter was examined, and not before.
        "startupProbe": {
            "httpGet": {"path": STARTED_PATH, "port": SIDECAR_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": START_SECONDS,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "configuration", "mountPath": CONFIGURATION_FOLDER, "readOnly": True},
            {"name": "run", "mountPath": RUN_FOLDER},
            *cache,
            {"name": "tmp", "mountPath": "/tmp"},
            *({**each, "readOnly": True} for each in mounted),
        ],
    }


def _environment(deployment: AdapterDeployment) -> list[Object]:
    source = deployment.spec.base_model
    plain = {
        "HOME": SCRATCH_FOLDER,
        "HF_HOME": f"{CACHE_FOLDER}/huggingface",
        "VLLM_CACHE_ROOT": f"{CACHE_FOLDER}/vllm",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }
    if deployment.spec.resources.gpus == 0:
        # vLLM would pin its threads to the first cores that it may use, which are the same ones in
        # every pod of a node, and keep them busy while they wait.
        plain |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE"}
    if not _is_on_hub(deployment):
        # A path that does not exist would otherwise be taken for a repository of the hub.
        plain["HF_HUB_OFFLINE"] = "1"
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *key_from(HUB_TOKEN_VARIABLE, [source.secret_ref]),
    ]


def _is_on_hub(deployment: AdapterDeployment) -> bool:
    return parse_location(deployment.spec.base_model.uri).scheme is Scheme.HUB


def _probe(path: str, *, period: int, failures: int) -> Object:
    """Probes go through the proxy: vLLM itself is not reachable from outside the pod."""
    return {
        "httpGet": {"path": path, "port": PROXY_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
