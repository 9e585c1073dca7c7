"""The files of a serving pod: vLLM's options, the desired state, the proxy. Pure."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

import yaml

from tunesmith.adapterdeployment.limits import Limits, vllm_slots
from tunesmith.adapterdeployment.rollout import Version
from tunesmith.adapterdeployment.selection import base_model_name
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.locations import Location, Scheme, parse_location
from tunesmith.api.serving_contract import (
    HUB_CACHE_FOLDER,
    PROXY_FILE,
    ROUTER_FILE,
    VLLM_PORT,
    DesiredAdapter,
    DesiredState,
    Grant,
    Route,
    ServedBase,
    Target,
)
from tunesmith.kube.volumes import path_in_pod

Options = dict[str, Any]

#: Time for requests under way to finish.
DRAIN_SECONDS = 60


def server_options(deployment: AdapterDeployment) -> Options:
    """What vLLM is told in any case. It listens on loopback only: the proxy is the door."""
    spec = deployment.spec
    location = parse_location(spec.base_model.uri)
    options: Options = {
        "model": model_argument(location),
        "served-model-name": base_model_name(deployment),
        "host": "127.0.0.1",
        "port": VLLM_PORT,
        "shutdown-timeout": DRAIN_SECONDS,
        # By itself vLLM would open pickles where there is nothing else.
        "load-format": "safetensors",
        "trust-remote-code": False,
    }
    if location.revision:
        options["revision"] = location.revision
    if spec.max_model_length:
        options["max-model-len"] = spec.max_model_length
    if spec.resources.gpus > 1:
        options["tensor-parallel-size"] = spec.resources.gpus
    chosen = spec.server.arguments
    return options | {name: _argument(value) for name, value in chosen.items()}


def _argument(text: str) -> str | int | float | bool:
    """A number or a truth value is written as such into the file; anything else, also JSON, stays
    the text it is."""
    match text.lower():
        case "true" | "false" as word:
            return word == "true"
        case _ if re.fullmatch(r"-?\d+", text):
            return int(text)
        case _ if re.fullmatch(r"-?\d+(\.\d+)?([eE]-?\d+)?", text):
            return float(text)
        case _:
            return text


def with_adapters(options: Options, deployment: AdapterDeployment, limits: Limits) -> Options:
    """The options of a server that holds adapters beside its base model."""
    slots = vllm_slots(deployment, limits)
    return options | {
        "enable-lora": True,
        "max-loras": slots,
        "max-cpu-loras": max(limits.max_cpu_loras, slots),
        "max-lora-rank": limits.max_lora_rank,
    }


def with_merged_model(options: Options, path: str, name: str) -> Options:
    """The options of a server of one adapter that is part of the weights."""
    kept = {key: value for key, value in options.items() if key != "revision"}
    return kept | {"model": path, "served-model-name": name}


def options_text(options: Options) -> str:
    return yaml.safe_dump(options, sort_keys=False, width=4096)


def options_model(text: str | None) -> str | None:
    """Where the weights are of a server with these options; None where they cannot be read."""
    try:
        return str(yaml.safe_load(text or "")["model"])
    except (yaml.YAMLError, KeyError, TypeError):
        return None


def options_digest(text: str) -> str:
    """Names a set of options: pods that carry another were started with others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_argument(location: Location) -> str:
    """How vLLM is told where the base model is: a path, or a hub repository."""
    return path_in_pod(location) or location.holder


def served_base(deployment: AdapterDeployment) -> ServedBase:
    location = parse_location(deployment.spec.base_model.uri)
    hub_folder = None
    if location.scheme is Scheme.HUB:
        hub_folder = f"{HUB_CACHE_FOLDER}/models--{location.holder.replace('/', '--')}"
    return ServedBase(
        name=base_model_name(deployment), path=path_in_pod(location), hub_folder=hub_folder
    )


def desired_state(
    deployment: AdapterDeployment,
    versions: list[Version],
    limits: Limits,
    base_address: str | None,
) -> DesiredState:
    """What every replica is to hold, and which version answers under which name."""
    loaded = [each for each in versions if each.loaded]
    return DesiredState(
        base=served_base(deployment),
        max_lora_rank=limits.max_lora_rank,
        adapters=[
            DesiredAdapter(
                model=each.candidate.model,
                path=each.candidate.path,
                digest=each.candidate.digest,
                base_model_digest=each.candidate.base_model_digest,
            )
            for each in loaded
        ],
        routes=routes(versions),
        grants=grants(deployment),
        base_address=base_address,
    )


def base_state(deployment: AdapterDeployment, name: str, answering: list[Version]) -> DesiredState:
    """The state of a server without adapters: of the base model, or of merged weights."""
    return DesiredState(
        base=ServedBase(name=name),
        max_lora_rank=1,
        routes=routes(answering),
        grants=grants(deployment),
    )


def routes(versions: list[Version]) -> list[Route]:
    """Each name with the versions that answer for it."""
    found: dict[str, list[Target]] = {}
    for each in versions:
        if each.weight > 0:
            target = Target(model=each.candidate.model, weight=each.weight)
            found.setdefault(each.candidate.name, []).append(target)
    return [Route(name=name, targets=targets) for name, targets in found.items()]


def grants(deployment: AdapterDeployment) -> list[Grant] | None:
    access = deployment.spec.access
    if access is None or not access.grants:
        return None
    return [Grant(client=each.client, models=each.models) for each in access.grants]


@cache
def proxy_files() -> dict[str, str]:
    """The proxy's configuration and its router, as they lie beside this module."""
    folder = resources.files("tunesmith.adapterdeployment") / "proxy"
    return {name: (folder / name).read_text("utf-8") for name in (PROXY_FILE, ROUTER_FILE)}
