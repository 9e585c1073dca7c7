"""How the training will fit into its memory, told before a GPU is asked for."""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.api.digests import MODEL_CONFIG
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.trainer_contract import PreparationPlan, Reason
from tunesmith.memory_planner.model_shape import read_shape
from tunesmith.memory_planner.planning import DoesNotFit, plan_memory
from tunesmith.memory_planner.request import PlanRequest

from tunesmith_trainer import machine
from tunesmith_trainer.failure import TrainerError


def memory_plan(plan: PreparationPlan, base_folder: Path) -> MemoryPlan:
    """The plan for this model on the hardware that is asked for.

    Raises TrainerError(DOES_NOT_FIT) with what would fit, or with what contradicts itself.
    """
    try:
        found = plan_memory(
            PlanRequest(
                shape=read_shape(json.loads((base_folder / MODEL_CONFIG).read_bytes())),
                method=plan.method,
                lora=plan.lora,
                training=plan.training,
                hardware=plan.hardware,
                bytes_per_value=2 if plan.hardware.gpus else bytes_per_value_of_this_machine(),
            )
        )
    except ValueError as error:
        raise TrainerError(Reason.DOES_NOT_FIT, str(error)) from error
    if isinstance(found, DoesNotFit):
        raise TrainerError(Reason.DOES_NOT_FIT, found.message)
    return found


def bytes_per_value_of_this_machine() -> int:
    """2 where this CPU multiplies in bfloat16, else 4. Nodes without GPUs are taken to be alike."""
    return int(machine.compute_type(machine.device()).itemsize)
