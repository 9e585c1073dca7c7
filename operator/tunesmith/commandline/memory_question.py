"""How a job would fit into memory, asked before it exists. Pure.

The trainer asks the same of the planner once it has the model's config.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kubernetes.utils.quantity import parse_quantity

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.trainer_contract import Hardware
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.model_shape import ModelShape, UnknownModelError, read_shape
from tunesmith.memory_planner.planning import DoesNotFit, plan_memory, unpredicted_plan
from tunesmith.memory_planner.request import PlanRequest

#: What the chart takes GPUs to have where nobody says; a platform team may have said otherwise.
DEFAULT_GPU_MEMORY = "80Gi"
#: A node's CPU may multiply in bfloat16; whoever does not know plans for one that does not.
CPU_BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class NamedShape:
    """A model's shape, and where it is known from."""

    name: str
    shape: ModelShape


@dataclass(frozen=True)
class Fit:
    """The answer: a plan, or why there is none."""

    plan: MemoryPlan | None = None
    #: It cannot be trained like this; what would fit.
    does_not_fit: str | None = None
    #: What the answer rests on, or lacks.
    note: str = ""


def shape_of(base_model_uri: str, given: str | None) -> NamedShape | None:
    """From a config.json or a known model's name, else by the name of the hub's repository.

    Raises ValueError for a file that is no config.json, UnknownModelError for a model whose
    memory nobody can compute.
    """
    if given is not None:
        if given in KNOWN_MODELS:
            return NamedShape(given, KNOWN_MODELS[given])
        try:
            return NamedShape(given, read_shape(json.loads(Path(given).read_text())))
        except OSError as error:
            known = ", ".join(KNOWN_MODELS)
            raise ValueError(
                f"{given} is neither a config.json ({error.strerror}) nor one of {known}"
            ) from error
    location = parse_location(base_model_uri)
    if location.scheme is not Scheme.HUB:
        return None
    repository = location.holder.partition("/")[2].lower().removeprefix("meta-")
    for name, shape in KNOWN_MODELS.items():
        if repository == name.lower() or repository.startswith(f"{name.lower()}-"):
            return NamedShape(name, shape)
    return None


def fit(spec: FineTuneJobSpec, model_shape: str | None, gpu_memory: str | None) -> Fit:
    """How the job would fit, on GPUs of the job's own word, else of this one."""
    asked = spec.resources
    memory = asked.gpu_memory or gpu_memory or DEFAULT_GPU_MEMORY
    try:
        hardware = Hardware(
            gpus=asked.gpus,
            nodes=asked.nodes,
            gpu_memory_bytes=_bytes(memory) if asked.gpus else None,
            memory_bytes=_bytes(asked.memory) if asked.memory else None,
        )
        try:
            named = shape_of(spec.base_model.uri, model_shape)
        except UnknownModelError as unknown:
            careful = unpredicted_plan(spec.method, spec.training, hardware)
            return Fit(careful, note=f"not predicted, and used with care: {unknown}")
        if named is None:
            return Fit(
                note="unknown, as the base model's shape is: give its config.json, or a known "
                "model's name, with --model-shape"
            )
        found = plan_memory(
            PlanRequest(
                named.shape,
                spec.method,
                spec.lora,
                spec.training,
                hardware,
                bytes_per_value=2 if asked.gpus else CPU_BYTES_PER_VALUE,
            )
        )
    except ValueError as error:
        return Fit(does_not_fit=str(error))
    note = f"for the shape of {named.name}"
    if asked.gpus and not asked.gpu_memory:
        origin = "--gpu-memory" if gpu_memory else "the chart's default"
        note += f", and GPUs of {memory} ({origin}: resources.gpuMemory is not set)"
    if isinstance(found, DoesNotFit):
        return Fit(does_not_fit=found.message, note=note)
    return Fit(found, note=note)


def _bytes(quantity: str) -> int:
    try:
        return int(parse_quantity(quantity))
    except ValueError:
        raise ValueError(f"{quantity!r} is no amount of memory: write 80Gi or 80G") from None
