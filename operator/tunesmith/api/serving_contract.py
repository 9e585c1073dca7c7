"""Where operator, sidecar and proxy of a serving pod meet: what is wanted, and what is true.

A serving pod has three containers. vLLM listens on loopback only. The proxy is the one door: it
turns served names into the names that vLLM knows, and keeps vLLM's own controls from tenants. The
sidecar brings both to the desired state and reports what it sees. It never calls the Kubernetes
API: the desired state comes as a mounted ConfigMap.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from pydantic import Field

from tunesmith.api.schema import ApiModel

SERVING_CONTRACT_VERSION = 1

#: The ConfigMap of an AdapterDeployment as the pods see it, and its files.
CONFIGURATION_FOLDER = "/etc/tunesmith/serving"
DESIRED_FILE = "desired.json"
SERVER_FILE = "vllm.yaml"
PROXY_FILE = "nginx.conf"
ROUTER_FILE = "route.lua"
#: API keys of clients, one file per client: a mounted Secret.
KEYS_FOLDER = "/etc/tunesmith/keys"

#: A volume of the pod's own that all three containers share.
RUN_FOLDER = "/run/tunesmith"
#: The configuration that vLLM starts with: SERVER_FILE and the LoRA modules that passed pre-flight.
START_FILE = f"{RUN_FOLDER}/vllm.yaml"
#: One line per start of vLLM in this pod.
STARTS_FILE = f"{RUN_FOLDER}/starts"
#: What the sidecar need not find out again when it is restarted.
MEMORY_FILE = f"{RUN_FOLDER}/memory.json"
#: Is there once the pod is leaving: the proxy then closes connections after each answer.
LEAVING_FILE = f"{RUN_FOLDER}/leaving"

#: Downloads of vLLM, which the sidecar reads too.
HUB_CACHE_FOLDER = "/cache/huggingface/hub"

PROXY_PORT = 8000
#: Loopback only.
VLLM_PORT = 8001
PROXY_CONTROL_PORT = 8002
#: What the sidecar reports, and its metrics with those of the proxy.
SIDECAR_PORT = 9401
#: vLLM's metrics.
METRICS_PORT = 9402

REPORT_PATH = "/report"
READY_PATH = "/ready"
STARTED_PATH = "/started"
METRICS_PATH = "/metrics"


class ServedBase(ApiModel):
    """The base model: a folder, or for hub repositories the place where vLLM's download will be."""

    name: str
    path: str | None = None
    #: Folder of the repository in the hub's cache, below HUB_CACHE_FOLDER.
    hub_folder: str | None = None


class DesiredAdapter(ApiModel):
    """One version of an adapter. ``model`` is the name that vLLM knows it by: name@version."""

    model: str
    path: str
    digest: str
    #: The base model that the verdict is about; unset when nobody judged it.
    base_model_digest: str | None = None


class Target(ApiModel):
    """A version that answers for a served name, and its share of the requests."""

    model: str
    weight: int = 100


class Route(ApiModel):
    """A served name and the versions that answer for it."""

    name: str
    targets: list[Target]


class Grant(ApiModel):
    """What one client may ask: served names, where ``*`` stands for any characters."""

    client: str
    models: list[str]


class DesiredState(ApiModel):
    """What every replica is to serve (DESIRED_FILE)."""

    version: int = SERVING_CONTRACT_VERSION
    base: ServedBase
    max_lora_rank: int
    adapters: list[DesiredAdapter] = Field(default_factory=list)
    routes: list[Route] = Field(default_factory=list)
    #: Unset: every client with a key may ask for everything.
    grants: list[Grant] | None = None
    #: Where requests for the base model go instead, as ADDRESS:PORT.
    base_address: str | None = None


def state_digest(text: str) -> str:
    """Names a desired state, by its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class AdapterState(StrEnum):
    """How far one version is on one replica."""

    #: Not looked at yet, being loaded, or loaded and not yet proven.
    LOADING = "Loading"
    #: Loaded from exactly this path, and its answers differ from the base model's.
    READY = "Ready"
    #: Pre-flight will not let it near vLLM.
    REFUSED = "Refused"
    #: vLLM would not load it, or it changes nothing. Tried again.
    FAILED = "Failed"


class AdapterReport(ApiModel):
    """One version on one replica."""

    model: str
    digest: str
    state: AdapterState
    reason: str = ""
    message: str = ""
    #: From the first sight of it to Ready, and of that vLLM's loading alone.
    seconds: float | None = None
    load_seconds: float | None = None


class Traffic(ApiModel):
    """What the proxy counted for one version since it started."""

    requests: int = 0
    #: Answers with status 500 or above, and connections that vLLM broke.
    errors: int = 0
    in_flight: int = 0
    #: Sum over the finished requests.
    seconds: float = 0.0


class ReplicaReport(ApiModel):
    """What the sidecar answers under REPORT_PATH."""

    version: int = SERVING_CONTRACT_VERSION
    #: ``state_digest`` of the DESIRED_FILE that it works from.
    desired: str
    #: How often vLLM was started in this pod.
    starts: int = 0
    serving: bool = False
    #: Name of the model that is served without an adapter.
    base: str = ""
    adapters: list[AdapterReport] = Field(default_factory=list)
    #: Versions that are still loaded, or still asked, though no longer desired.
    leaving: list[str] = Field(default_factory=list)
    #: Clients with an API key; unset where no key is asked for.
    clients: int | None = None
    traffic: dict[str, Traffic] = Field(default_factory=dict)
