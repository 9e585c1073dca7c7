"""How many adapters, of which rank, vLLM makes room for. Pure.

vLLM fixes these at its start, so a change rolls the pods. What a running server has stays while it
suffices: the number of adapters alone never restarts anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import yaml
from kubernetes.utils.quantity import parse_quantity

from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.api.adapterdeployment import LORA_RANKS, AdapterDeployment

#: Slots are cheap (16 of rank 16 took 1.4 GiB beside an 8B model on an H100) and a request for an
#: adapter that has none waits, so there is room for some more adapters than there are.
LEAST_SLOTS, MOST_SLOTS = 4, 16
LEAST_RANK = 16
MOST_IN_MEMORY = 1000
#: Share of the pod's memory for adapters.
MEMORY_SHARE = Decimal("0.25")
#: Bytes of an adapter per unit of rank where nothing is known: 84 MB at rank 16, as measured for
#: all seven projections of an 8B model in bfloat16.
BYTES_PER_RANK = 84_000_000 // 16


@dataclass(frozen=True)
class Limits:
    """What vLLM is told."""

    max_loras: int
    max_lora_rank: int
    max_cpu_loras: int


def limits(
    deployment: AdapterDeployment, candidates: list[Candidate], running: Limits | None
) -> Limits:
    """The user's values, else what runs if it suffices, else what the adapters need."""
    server = deployment.spec.server
    rank = server.max_lora_rank or _rank(candidates, running)
    slots = server.max_loras or (running.max_loras if running else _slots(len(candidates)))
    memory = server.max_cpu_loras or _in_memory(deployment, rank)
    return Limits(slots, rank, max(memory, slots))


def vllm_slots(deployment: AdapterDeployment, chosen: Limits) -> int:
    """Slots as vLLM is to make them.

    Its CPU kernels give requests of the base model the adapter of the last slot when both share a
    batch: there a slot more is made, that is never filled.
    """
    return chosen.max_loras + (1 if deployment.spec.resources.gpus == 0 else 0)


def running_limits(deployment: AdapterDeployment, configuration: str | None) -> Limits | None:
    """The limits in the configuration file of the running pods."""
    try:
        options = yaml.safe_load(configuration or "")
        spare = 1 if deployment.spec.resources.gpus == 0 else 0
        return Limits(
            max(1, int(options["max-loras"]) - spare),
            int(options["max-lora-rank"]),
            int(options["max-cpu-loras"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


def _rank(candidates: list[Candidate], running: Limits | None) -> int:
    needed = max([LEAST_RANK, *(each.rank or 0 for each in candidates)])
    if running:
        needed = max(needed, running.max_lora_rank)
    return next((each for each in LORA_RANKS if each >= needed), LORA_RANKS[-1])


def _slots(adapters: int) -> int:
    """Twice the adapters there are, as a power of two."""
    wanted = 1 << max(0, 2 * adapters - 1).bit_length()
    return min(max(wanted, LEAST_SLOTS), MOST_SLOTS)


def _in_memory(deployment: AdapterDeployment, rank: int) -> int:
    memory = deployment.spec.resources.memory
    if not memory:
        return MOST_SLOTS
    room = parse_quantity(memory) * MEMORY_SHARE / (BYTES_PER_RANK * rank)
    return max(1, min(int(room), MOST_IN_MEMORY))
