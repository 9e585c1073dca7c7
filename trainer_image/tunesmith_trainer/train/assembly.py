"""Model, data and trainer, put together from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.memory import Parallelism
from tunesmith.api.trainer_contract import TrainingPlan

from tunesmith_trainer import machine
from tunesmith_trainer.data.chat import Example
from tunesmith_trainer.processes import are_several

if TYPE_CHECKING:
    from tunesmith_trainer.train.engine.settings import EngineSettings
    from tunesmith_trainer.train.lasting import LastingTrainer


def build_trainer(
    plan: TrainingPlan,
    base_folder: Path,
    train: Sequence[Example],
    dev: Sequence[Example],
    scratch: Path,
    report_to: Sequence[str] = (),
) -> LastingTrainer:
    """A trainer that has not trained yet. Raises TrainerError if the model cannot be used."""
    from transformers import PrinterCallback

    from tunesmith_trainer.train.engine.packing import feeding
    from tunesmith_trainer.train.forgiving import reporting_callbacks
    from tunesmith_trainer.train.lasting import LastingTrainer
    from tunesmith_trainer.train.settings import arguments, engine_settings

    machine.use_all_processors()
    on_gpu = machine.device().type == "cuda"
    training, memory = plan.training, plan.memory
    settings = engine_settings(memory, plan.lora, training, plan.backend, on_gpu=on_gpu)
    train_rows, held_out_rows, collator = feeding(
        train, dev, settings, memory.micro_batch_size, packing=training.packing
    )
    # First: it meets the other processes.
    given = arguments(training, memory, scratch, on_gpu=on_gpu, name=plan.owner)
    trainer = LastingTrainer(
        model=trainable_model(plan, base_folder, settings),
        args=given,
        collator=collator,
        train_rows=train_rows,
        held_out_rows=held_out_rows,
    )
    trainer.remove_callback(PrinterCallback)
    for callback in reporting_callbacks(report_to):
        trainer.add_callback(callback)
    return trainer


def trainable_model(plan: TrainingPlan, folder: Path, settings: EngineSettings) -> Any:
    """The base model with what the method trains: the same on every process."""
    import torch
    from transformers import set_seed

    from tunesmith_trainer.train.engine.build import prepare_model

    device = machine.device()
    set_seed(plan.training.seed)
    if not (are_several() and plan.memory.parallelism is Parallelism.FSDP2):
        return prepare_model(folder, plan.base_model.uri, settings, device)

    from tunesmith_trainer.train.sharding import shard

    # 4-bit weights are not sharded, and are quantised where they will lie.
    loaded_on = device if settings.method.is_quantised else torch.device("cpu")
    return shard(prepare_model(folder, plan.base_model.uri, settings, loaded_on))
