"""The training recipe, from the plan to a published adapter. Reads from top to bottom."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tunesmith.api import digests
from tunesmith.api.finetunejob import Artifact, TrainingPhase
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PROMPT_EXAMPLES_FILE,
    TrainingOutcome,
    TrainingPlan,
    plan_digest,
)

from tunesmith_trainer import artifact, sources
from tunesmith_trainer.data.chat import ChatFormat, Example, load_chat_format, require_length
from tunesmith_trainer.data.dataset import read_dataset, require_enough
from tunesmith_trainer.data.split import Split, prompt_examples, split_and_deduplicate
from tunesmith_trainer.lineage import BaseModelLineage, Lineage, hub_revision, lineage_of, now
from tunesmith_trainer.output import OutputStore, open_output
from tunesmith_trainer.output.oci import pushed
from tunesmith_trainer.progress import ProgressBoard

if TYPE_CHECKING:
    from tunesmith_trainer.train.engine_trainer import EngineTrainer

log = logging.getLogger(__name__)


def train(plan: TrainingPlan, board: ProgressBoard) -> TrainingOutcome:
    """Train, or report what an earlier attempt at the same plan has already trained."""
    board.training(phase=TrainingPhase.PREPARING)
    started_at = now()
    output = open_output(plan.output)
    split = prepare_data(plan, board)
    base_folder = sources.model_folder(plan.base_model)
    base_model = identify_base_model(plan, base_folder)
    finished = artifact.recall(output, plan_digest(plan), split.receipt, base_model.digest)
    if finished is not None:
        log.info("already trained: %s", finished.artifact.uri)
        board.training(**dict(finished.progress))
        return in_registry(plan, output, finished)

    output.require_writable()
    chat = load_chat_format(base_folder, plan.base_model.uri)
    train_examples, held_out_examples = tokenise(plan, split, chat)

    with TemporaryDirectory(prefix="checkpoints-", dir=scratch()) as checkpoints:
        trainer = build_trainer(
            plan, base_folder, chat, train_examples, held_out_examples, Path(checkpoints), board
        )
        trainer.train()
        board.training(phase=TrainingPhase.SAVING, eta=None)
        lineage = lineage_of(
            plan,
            base_model,
            split.receipt,
            device=str(trainer.model.device),
            compute_type=str(trainer.model.dtype).removeprefix("torch."),
            started_at=started_at,
        )
        name, digest = artifact.publish(
            output,
            lambda staging: write_result(
                staging, trainer, chat, split, plan.held_out.seed, lineage
            ),
        )

    uri = f"{output.uri}/{name}"
    outcome = TrainingOutcome(
        artifact=Artifact(
            uri=uri, digest=digest, base_model_digest=base_model.digest, rank=plan.lora.rank
        ),
        dataset=split.receipt,
        progress=board.training(phase=TrainingPhase.DONE, percent=100),
    )
    artifact.remember(output, plan_digest(plan), outcome)
    log.info("published %s (%s)", uri, digest)
    return in_registry(plan, output, outcome)


def in_registry(
    plan: TrainingPlan, output: OutputStore, outcome: TrainingOutcome
) -> TrainingOutcome:
    """The outcome with its artifact pushed, if the plan wants that. What is stored stays: an
    attempt that failed here has no more to do than this."""
    if plan.oci is None:
        return outcome
    folder = output.folder(outcome.artifact.uri.rsplit("/", 1)[-1])
    assert folder is not None, f"{outcome.artifact.uri} was there a moment ago"
    return outcome.model_copy(update={"artifact": pushed(outcome.artifact, folder, plan.oci)})


def prepare_data(plan: TrainingPlan, board: ProgressBoard) -> Split:
    """Read, seal the held-out side, drop duplicates: no library heavier than the standard one."""
    conversations = read_dataset(sources.dataset_file(plan.dataset), plan.dataset)
    require_enough(conversations, plan.dataset)
    split = split_and_deduplicate(conversations, plan.held_out)
    receipt = split.receipt
    board.dataset(receipt)
    log.info(
        "%d rows: %d held out, %d duplicates dropped, %d to train on",
        receipt.rows,
        receipt.held_out_rows,
        receipt.duplicate_rows,
        receipt.train_rows,
    )
    return split


def identify_base_model(plan: TrainingPlan, folder: Path) -> BaseModelLineage:
    began = time.monotonic()
    digest = digests.base_model_digest(folder)
    log.info("base model %s, read in %.1f s", digest, time.monotonic() - began)
    return BaseModelLineage(uri=plan.base_model.uri, digest=digest, revision=hub_revision(folder))


def tokenise(
    plan: TrainingPlan, split: Split, chat: ChatFormat
) -> tuple[list[Example], list[Example]]:
    train_examples = [chat.example(conversation) for conversation in split.train]
    held_out_examples = [chat.example(conversation) for conversation in split.held_out]
    require_length([*train_examples, *held_out_examples], plan.training.max_length)
    tokens = sum(len(example.tokens) for example in train_examples)
    learned = sum(len(example.tokens) - example.prompt_length for example in train_examples)
    log.info("%d tokens to train on, %d of them answers", tokens, learned)
    return train_examples, held_out_examples


def scratch() -> Path:
    from tunesmith_trainer.machine import scratch_folder

    return scratch_folder()


def build_trainer(
    plan: TrainingPlan,
    base_folder: Path,
    chat: ChatFormat,
    train_examples: list[Example],
    held_out_examples: list[Example],
    checkpoints: Path,
    board: ProgressBoard,
) -> EngineTrainer:
    """The engine's model and loop around our data, already in tokens."""
    from transformers import PrinterCallback

    from tunesmith_trainer import machine
    from tunesmith_trainer.train.engine.build import prepare_model
    from tunesmith_trainer.train.engine.packing import Collator, rows_of
    from tunesmith_trainer.train.engine_trainer import EngineTrainer
    from tunesmith_trainer.train.settings import arguments, engine_settings
    from tunesmith_trainer.train.watch import Watch

    machine.use_all_processors()
    device = machine.device()
    on_gpu = device.type == "cuda"
    training, memory = plan.training, plan.memory
    settings = engine_settings(memory, plan.lora, training, plan.backend, on_gpu=on_gpu)
    length = training.max_length
    # Compiled code is for one shape: rows of a micro-batch are filled up, by a per cent or two.
    fixed = length * memory.micro_batch_size if settings.compile and training.packing else None
    trainer = EngineTrainer(
        model=prepare_model(base_folder, plan.base_model.uri, settings, device),
        args=arguments(training, memory, checkpoints, on_gpu=on_gpu),
        collator=Collator(length, fixed),
        train_rows=rows_of(train_examples, length, packing=training.packing),
        held_out_rows=rows_of(held_out_examples, length, packing=training.packing),
        callbacks=[Watch(board)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def write_result(
    folder: Path,
    trainer: EngineTrainer,
    chat: ChatFormat,
    split: Split,
    seed: int,
    lineage: Lineage,
) -> None:
    from tunesmith_trainer.train.lora import save_adapter

    save_adapter(trainer.model, folder, lineage.base_model.uri)
    chat.tokenizer.save_pretrained(folder)
    examples = prompt_examples(split.train, seed)
    for name, rows in ((HELD_OUT_FILE, split.held_out), (PROMPT_EXAMPLES_FILE, examples)):
        lines = "".join(f"{conversation.to_line()}\n" for conversation in rows)
        (folder / name).write_text(lines, encoding="utf-8")
    (folder / artifact.LINEAGE_FILE).write_text(as_json(lineage.to_json()), encoding="utf-8")
    history = trainer.state.log_history
    (folder / artifact.METRICS_FILE).write_text(as_json(history), encoding="utf-8")


def as_json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
