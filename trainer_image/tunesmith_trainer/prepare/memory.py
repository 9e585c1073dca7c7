"""How the training will fit into its memory, told before a GPU is asked for."""

from __future__ import annotations

from pathlib import Path

from tunesmith.api.memory import MemoryPlan
from tunesmith.api.trainer_contract import PreparationPlan, Reason
from tunesmith.memory_planner.model_shape import UnknownModelError, read_shape
from tunesmith.memory_planner.planning import DoesNotFit, plan_memory, unpredicted_plan
from tunesmith.memory_planner.request import PlanRequest

from tunesmith_trainer import machine
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.model import read_configuration


def memory_plan(plan: PreparationPlan, base_folder: Path) -> tuple[MemoryPlan, list[str]]:
    """The plan for this model on the hardware that is asked for, and what is worth telling.

    Raises TrainerError(DOES_NOT_FIT) with what would fit, or with what contradicts itself.
    """
    configuration = read_configuration(base_folder, plan.base_model.uri)
    try:
        try:
            shape = read_shape(configuration)
        except UnknownModelError as unknown:
            careful = unpredicted_plan(plan.method, plan.training, plan.hardware)
            return careful, [f"The memory is not predicted, and used with care: {unknown}."]
        found = plan_memory(
            PlanRequest(
                shape=shape,
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
    return found, []


def bytes_per_value_of_this_machine() -> int:
    """2 where this CPU multiplies in bfloat16, else 4. Nodes without GPUs are taken to be alike."""
    return int(machine.compute_type(machine.device()).itemsize)
