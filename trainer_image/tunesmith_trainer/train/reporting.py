"""Loss curves for tools besides status and report, through transformers' own integrations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from tunesmith.api.finetunejob import ReportTo
from tunesmith.api.trainer_contract import Reason, TrainingPlan
from tunesmith.api.training import ReportKind

from tunesmith_trainer.failure import TrainerError

#: What each integration imports; any of them will do.
PACKAGES: dict[ReportKind, tuple[str, ...]] = {
    ReportKind.TENSORBOARD: ("tensorboard", "tensorboardX"),
    ReportKind.MLFLOW: ("mlflow",),
    ReportKind.WANDB: ("wandb",),
}
#: Their names in transformers.
INTEGRATIONS = {
    ReportKind.TENSORBOARD: "tensorboard",
    ReportKind.MLFLOW: "mlflow",
    ReportKind.WANDB: "wandb",
}
EXPERIMENT = "tunesmith"


def integrations(plan: TrainingPlan, tensorboard_folder: str) -> list[str]:
    """The integrations that the plan asks for, by their names in transformers.

    They read where to report to from the environment, which is set here unless podTemplate.env or
    a Secret has set it. Raises TrainerError if a package is missing.
    """
    require_packages(plan.report_to)
    for target in plan.report_to:
        for variable, value in environment(target, plan.owner, tensorboard_folder).items():
            os.environ.setdefault(variable, value)
    return [INTEGRATIONS[target.kind] for target in plan.report_to]


def require_packages(targets: Sequence[ReportTo]) -> None:
    """Find out before training that a report cannot be made."""
    for target in targets:
        packages = PACKAGES[target.kind]
        if not any(find_spec(package) for package in packages):
            raise TrainerError(
                Reason.BACKEND_MISSING,
                f"reportTo {target.kind} needs the package {packages[0]}, which this trainer image "
                f"does not have: add it to the image, or remove {target.kind} from reportTo",
            )


def environment(target: ReportTo, owner: str, tensorboard_folder: str) -> dict[str, str]:
    match target.kind:
        case ReportKind.TENSORBOARD:
            return {"TENSORBOARD_LOGGING_DIR": tensorboard_folder}
        case ReportKind.MLFLOW:
            return {
                "MLFLOW_TRACKING_URI": target.uri or "",
                "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
                # What transformers logs by itself may be longer than a server allows.
                "MLFLOW_FLATTEN_PARAMS": "true",
            }
        case ReportKind.WANDB:
            return {
                "WANDB_BASE_URL": target.uri or "",
                "WANDB_PROJECT": EXPERIMENT,
                "WANDB_NAME": owner,
                "WANDB_DIR": "/tmp",
            }
