"""Builds the children of an AdapterDeployment: vLLM's configuration, Deployment and Service."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from tunesmith.adapterdeployment.selection import Candidate, base_model_name
from tunesmith.api import GROUP
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.locations import Location, Scheme, parse_location
from tunesmith.api.objects import Kind
from tunesmith.api.trainer_contract import SCRATCH_FOLDER
from tunesmith.kube.labels import child_metadata, owner_labels
from tunesmith.kube.pod_spec import container_resources, hub_token, pod
from tunesmith.kube.volumes import mount, path_in_pod, volumes
from tunesmith.settings import Settings

Object = dict[str, Any]

PORT = 8000
SERVICE_PORT = 80
CONFIG_FOLDER = "/etc/vllm"
CONFIG_FILE = "vllm.yaml"
CONFIG_DIGEST = f"{GROUP}/configuration-digest"

#: The ranks that vLLM accepts as an upper bound; a rank is rounded up to one of them.
MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: Adapters that one batch may use at once; more wait in memory and are swapped in.
MOST_SLOTS = 16

#: Loading a large model may take long; a pod that is not up by then is restarted.
START_SECONDS = 1800
#: Time for endpoints to forget a leaving pod: vLLM refuses new requests once it shuts down.
PRE_STOP_SECONDS = 5
#: Time for requests under way to finish.
DRAIN_SECONDS = 60


def child_name(deployment: AdapterDeployment) -> str:
    """One name for all three children; the suffix keeps it from meeting a user's own objects."""
    return f"{deployment.metadata.name}-vllm"


def endpoint(deployment: AdapterDeployment) -> str:
    return f"http://{child_name(deployment)}.{deployment.metadata.namespace}.svc/v1"


def pod_labels(deployment: AdapterDeployment) -> dict[str, str]:
    return owner_labels(Kind.ADAPTER_DEPLOYMENT, deployment.metadata.name)


def children(
    deployment: AdapterDeployment, adapters: list[Candidate], settings: Settings
) -> list[Object]:
    """Everything that serves these adapters. Equal input gives equal objects, in every detail."""
    configuration = vllm_configuration(deployment, adapters)
    return [
        _config_map(deployment, configuration),
        _service(deployment),
        _deployment(deployment, adapters, configuration, settings),
    ]


def vllm_configuration(deployment: AdapterDeployment, adapters: list[Candidate]) -> str:
    """vLLM's own configuration file, with the LoRA modules generated from the ready adapters."""
    spec = deployment.spec
    slots = min(max(len(adapters), 1), MOST_SLOTS)
    if spec.resources.gpus == 0:
        # vLLM's CPU kernels give requests of the base model the adapter of the last slot when
        # both share a batch: a slot that is never filled keeps the base's answers its own.
        slots += 1
    rank = max((each.rank for each in adapters), default=MAX_LORA_RANKS[2])
    options: Object = {
        "model": model_argument(parse_location(spec.base_model.uri)),
        "served-model-name": base_model_name(deployment),
        "port": PORT,
        "enable-lora": True,
        "max-loras": slots,
        "max-cpu-loras": max(len(adapters), slots),
        "max-lora-rank": next(each for each in MAX_LORA_RANKS if each >= rank),
        "shutdown-timeout": DRAIN_SECONDS,
    }
    revision = parse_location(spec.base_model.uri).revision
    if revision:
        options["revision"] = revision
    if spec.max_model_length:
        options["max-model-len"] = spec.max_model_length
    if spec.resources.gpus > 1:
        options["tensor-parallel-size"] = spec.resources.gpus
    if adapters:
        options["lora-modules"] = [
            json.dumps({"name": each.name, "path": adapter_path(each)}) for each in adapters
        ]
    return yaml.safe_dump(options, sort_keys=False, width=4096)


def model_argument(location: Location) -> str:
    """How vLLM is told where the base model is: a path, or a hub repository."""
    return path_in_pod(location) or location.holder


def adapter_path(adapter: Candidate) -> str:
    """The folder of an adapter inside the pod; it contains the digest, so it never changes."""
    path = path_in_pod(parse_location(adapter.uri))
    assert path is not None, f"adapters lie on claims, not in {adapter.uri}"
    return path


def configuration_digest(configuration: str) -> str:
    return hashlib.sha256(configuration.encode()).hexdigest()[:16]


def _metadata(deployment: AdapterDeployment) -> Object:
    return child_metadata(Kind.ADAPTER_DEPLOYMENT, deployment.metadata, child_name(deployment))


def _config_map(deployment: AdapterDeployment, configuration: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(deployment),
        "data": {CONFIG_FILE: configuration},
    }


def _service(deployment: AdapterDeployment) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment),
        "spec": {
            "selector": pod_labels(deployment),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": PORT}],
        },
    }


def _deployment(
    deployment: AdapterDeployment,
    adapters: list[Candidate],
    configuration: str,
    settings: Settings,
) -> Object:
    template = _pod(deployment, adapters, settings)
    annotations = template["metadata"].setdefault("annotations", {})
    annotations[CONFIG_DIGEST] = configuration_digest(configuration)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(deployment),
        "spec": {
            "replicas": deployment.spec.replicas,
            "selector": {"matchLabels": pod_labels(deployment)},
            "strategy": {
                "type": "RollingUpdate",
                # A new pod answers before an old one goes.
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "progressDeadlineSeconds": START_SECONDS + 600,
            "template": template,
        },
    }


def _pod(deployment: AdapterDeployment, adapters: list[Candidate], settings: Settings) -> Object:
    spec = deployment.spec
    found, mounted = volumes([mount(spec.base_model.uri), *(mount(each.uri) for each in adapters)])
    configuration = {"name": "configuration", "configMap": {"name": child_name(deployment)}}
    # vLLM's processes talk through shared memory and need more than a container's 64 MiB.
    shared_memory = {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}
    container = {
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": ["--config", f"{CONFIG_FOLDER}/{CONFIG_FILE}"],
        "env": _environment(deployment),
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": container_resources(spec.resources),
        "startupProbe": _probe(period=5, failures=START_SECONDS // 5),
        "readinessProbe": _probe(period=5, failures=2),
        "livenessProbe": _probe(period=20, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "volumeMounts": [
            {"name": "configuration", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *mounted,
        ],
    }
    return pod(
        spec.pod_template,
        pod_labels(deployment),
        container,
        [configuration, shared_memory, *found],
        terminationGracePeriodSeconds=PRE_STOP_SECONDS + DRAIN_SECONDS + 15,
    )


def _environment(deployment: AdapterDeployment) -> list[Object]:
    source = deployment.spec.base_model
    plain = {"HOME": SCRATCH_FOLDER, "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
    if parse_location(source.uri).scheme is not Scheme.HUB:
        # A path that does not exist would otherwise be taken for a repository of the hub.
        plain["HF_HUB_OFFLINE"] = "1"
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *hub_token([source.secret_ref]),
    ]


def _probe(*, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": "/health", "port": PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
