"""What the platform team decides for all jobs; read once from the environment at start."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from kubernetes.utils.quantity import parse_quantity

from tunesmith.api.evaluation_suite import BenchmarkSize
from tunesmith.api.locations import PVC_FOLDER_PATTERN, PVC_PATTERN

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class LogFormat(StrEnum):
    """How a line of the operator's log looks."""

    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True)
class GeneralKnowledge:
    """A benchmark for every FineTuneJob that has none of its own: does it forget?"""

    size: BenchmarkSize
    #: pvc:// folder of the prepared data, on a claim of each namespace; None for the hub.
    data: str | None = None


@dataclass(frozen=True)
class HubAccess:
    """How pods come to what lies on the Hugging Face Hub."""

    #: A mirror that speaks the hub's protocol; empty: the hub itself.
    endpoint: str = ""
    #: pvc:// folder laid out as the hub's cache, on a claim of each namespace. Nothing is fetched
    #: then. None: there is no such cache.
    cache: str | None = None


@dataclass(frozen=True)
class Settings:
    """Values of the chart, as they reach the operator."""

    trainer_image: str
    serving_image: str
    #: Sidecar and proxy of serving pods run from the operator's image.
    operator_image: str
    operator_namespace: str
    #: The namespaces that are looked after; empty: all.
    namespaces: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"
    #: Secrets for pulling our images, in every namespace in which we make pods.
    pull_secrets: tuple[str, ...] = ()
    hub: HubAccess = HubAccess()
    #: Memory of one GPU of this cluster, for jobs that do not say.
    gpu_memory: str = "80Gi"
    #: Where KEDA finds vLLM's metrics; empty: there is no autoscaling.
    prometheus_address: str = ""
    #: None: only what a job asks for itself is measured.
    general_knowledge: GeneralKnowledge | None = None
    identity: str = field(default_factory=socket.gethostname)
    workers: int = 16
    health_port: int = 8080
    log_format: LogFormat = LogFormat.JSON
    #: Where spans go, by OTLP over HTTP; empty: there are none.
    tracing_endpoint: str = ""
    resync: timedelta = timedelta(minutes=10)
    #: How often a running pod is asked how far it is.
    progress_interval: timedelta = timedelta(seconds=10)
    #: Pause before the second attempt; it doubles with each further one.
    first_retry_delay: timedelta = timedelta(seconds=15)


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Settings from TUNESMITH_* variables. Raises SystemExit naming the first that is missing or
    unusable."""

    def required(name: str) -> str:
        value = environment.get(f"TUNESMITH_{name}", "")
        if not value:
            raise SystemExit(f"the environment variable TUNESMITH_{name} is not set")
        return value

    def seconds(name: str, default: timedelta) -> timedelta:
        text = environment.get(f"TUNESMITH_{name}_SECONDS", "")
        return timedelta(seconds=float(text)) if text else default

    return Settings(
        trainer_image=required("TRAINER_IMAGE"),
        serving_image=required("SERVING_IMAGE"),
        operator_image=required("OPERATOR_IMAGE"),
        operator_namespace=environment.get("TUNESMITH_NAMESPACE") or _own_namespace(),
        namespaces=tuple(environment.get("TUNESMITH_NAMESPACES", "").split()),
        gpu_memory=_gpu_memory(environment),
        prometheus_address=environment.get("TUNESMITH_PROMETHEUS_ADDRESS", ""),
        general_knowledge=_general_knowledge(environment),
        image_pull_policy=environment.get("TUNESMITH_IMAGE_PULL_POLICY", "IfNotPresent"),
        pull_secrets=tuple(environment.get("TUNESMITH_PULL_SECRETS", "").split()),
        hub=_hub(environment),
        workers=int(environment.get("TUNESMITH_WORKERS", "16")),
        health_port=int(environment.get("TUNESMITH_HEALTH_PORT", "8080")),
        log_format=_log_format(environment),
        tracing_endpoint=environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        resync=seconds("RESYNC", Settings.resync),
        progress_interval=seconds("PROGRESS_INTERVAL", Settings.progress_interval),
        first_retry_delay=seconds("FIRST_RETRY_DELAY", Settings.first_retry_delay),
    )


def _gpu_memory(environment: Mapping[str, str]) -> str:
    text = environment.get("TUNESMITH_GPU_MEMORY") or Settings.gpu_memory
    try:
        parse_quantity(text)
    except ValueError:
        raise SystemExit(
            f"TUNESMITH_GPU_MEMORY is {text!r}: write a quantity such as 80Gi"
        ) from None
    return text


def _log_format(environment: Mapping[str, str]) -> LogFormat:
    text = environment.get("TUNESMITH_LOG_FORMAT") or LogFormat.JSON
    if text not in list(LogFormat):
        raise SystemExit(f"TUNESMITH_LOG_FORMAT is {text!r}: write json or text")
    return LogFormat(text)


def _general_knowledge(environment: Mapping[str, str]) -> GeneralKnowledge | None:
    size = environment.get("TUNESMITH_GENERAL_KNOWLEDGE") or "Off"
    data = environment.get("TUNESMITH_GENERAL_KNOWLEDGE_DATA") or None
    if size not in ("Off", *BenchmarkSize):
        raise SystemExit(f"TUNESMITH_GENERAL_KNOWLEDGE is {size!r}: write Off, Full or Fast")
    if data and not re.match(PVC_PATTERN, data):
        raise SystemExit(
            f"TUNESMITH_GENERAL_KNOWLEDGE_DATA is {data!r}: write pvc://CLAIM/FOLDER, or nothing "
            "for the hub"
        )
    return None if size == "Off" else GeneralKnowledge(BenchmarkSize(size), data)


def _hub(environment: Mapping[str, str]) -> HubAccess:
    endpoint = environment.get("TUNESMITH_HUB_ENDPOINT", "")
    cache = environment.get("TUNESMITH_HUB_CACHE") or None
    if endpoint and not re.match(r"https?://[^/\s]+", endpoint):
        raise SystemExit(
            f"TUNESMITH_HUB_ENDPOINT is {endpoint!r}: write the address of a mirror, such as "
            "https://hub.example.com, or nothing for the hub"
        )
    if cache and not re.match(PVC_FOLDER_PATTERN, cache):
        raise SystemExit(
            f"TUNESMITH_HUB_CACHE is {cache!r}: write pvc://CLAIM or pvc://CLAIM/FOLDER, or "
            "nothing for no cache"
        )
    return HubAccess(endpoint, cache)


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"


def settings() -> Settings:
    return settings_from(os.environ)
