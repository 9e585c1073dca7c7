"""The plan's hyperparameters in transformers' terms, and what the plan does not spell out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.memory import MemoryPlan, Optimizer
from tunesmith.api.training import Backend, Training

from tunesmith_trainer.train.engine.settings import EngineSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments
    from tunesmith.api.method import Lora

#: transformers' names of the optimisers.
OPTIMIZERS = {
    Optimizer.ADAMW: "adamw_torch_fused",
    Optimizer.ADAMW_8BIT: "adamw_8bit",
    Optimizer.PAGED_ADAMW_8BIT: "paged_adamw_8bit",
}


def engine_settings(
    memory: MemoryPlan, lora: Lora, training: Training, backend: Backend, *, on_gpu: bool
) -> EngineSettings:
    """On a CPU nothing is compiled or computed twice: it has the memory, and no time to waste."""
    return EngineSettings(
        method=memory.method,
        lora=lora,
        checkpointing=memory.activation_checkpointing,
        optimizer=memory.optimizer,
        backend=backend,
        compile=on_gpu,
        max_length=training.max_length,
    )


def arguments(
    training: Training,
    memory: MemoryPlan,
    folder: Path,
    *,
    on_gpu: bool,
    name: str = "",
) -> TrainingArguments:
    """What to evaluate, save and load is decided elsewhere (keeping.py, lasting.py)."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        run_name=name,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=memory.micro_batch_size,
        per_device_eval_batch_size=memory.micro_batch_size,
        gradient_accumulation_steps=memory.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        # Below 1 it is a share of the steps.
        warmup_steps=training.warmup_ratio,
        optim=OPTIMIZERS[memory.optimizer],
        eval_strategy="no",
        save_strategy="no",
        seed=training.seed,
        data_seed=training.seed,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        # The engine's inputs are not those that the model's signature names.
        remove_unused_columns=False,
        # Every weight that learns takes part in every step, and buffers never change: those of a
        # 4-bit model are its weights, which DDP would send around before each forward pass.
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        # To tell a loss, the host waits for the GPU, which then waits for the host.
        logging_steps=5 if on_gpu else 1,
        logging_first_step=True,
        # A loss that is not a number must be seen, not averaged away.
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
