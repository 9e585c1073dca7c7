"""The training recipe, from prepared examples to a published result. Reads from top to bottom.

Every process of a training runs it; the first one alone writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tunesmith.api import digests
from tunesmith.api.job_status import Artifact, ArtifactKind, TrainingPhase
from tunesmith.api.trainer_contract import REPORT_FILE, TrainingOutcome, TrainingPlan

from tunesmith_trainer import artifact, processes, sources
from tunesmith_trainer.data.chat import ChatFormat, Example, load_chat_format, require_length
from tunesmith_trainer.failure import Preempted
from tunesmith_trainer.lineage import (
    BaseModelLineage,
    DevSliceLineage,
    RunLineage,
    hub_revision,
    lineage_of,
    now,
)
from tunesmith_trainer.machine import compute_type, scratch_folder
from tunesmith_trainer.output import FolderStore, OutputStore, open_output
from tunesmith_trainer.output.oci import pushed
from tunesmith_trainer.prepare.prepared import Prepared, prepared_folder, read_prepared
from tunesmith_trainer.progress import ProgressBoard
from tunesmith_trainer.train import checkpoints as saved
from tunesmith_trainer.train.checkpoints import Attempt, Checkpoint, Checkpoints, result_identity
from tunesmith_trainer.train.dev_slice import DevSlice, dev_slice
from tunesmith_trainer.train.reporting import integrations
from tunesmith_trainer.train.stopping import StopRequest, stops_at_the_end_of_a_step

if TYPE_CHECKING:
    from tunesmith_trainer.train.lasting import LastingTrainer

log = logging.getLogger(__name__)

TENSORBOARD_FOLDER = "tensorboard"


@dataclass(frozen=True)
class Run:
    """One attempt at a result, and what it goes on from."""

    plan: TrainingPlan
    output: OutputStore
    identity: str
    base_folder: Path
    base_model: BaseModelLineage
    prepared: Prepared
    prepared_folder: Path
    examples: DevSlice
    checkpoints: Checkpoints
    found: Checkpoint | None
    attempts: Sequence[Attempt]
    started_at: str


def train(plan: TrainingPlan, board: ProgressBoard) -> TrainingOutcome:
    """Train, or report what an earlier attempt at the same result has already made."""
    board.training(phase=TrainingPhase.PREPARING)
    started_at = now()
    examples_folder = prepared_folder(plan.prepared)
    prepared = read_prepared(examples_folder, plan.prepared.uri, plan.dataset)
    board.dataset(prepared.receipt)
    base_folder = sources.model_folder(plan.base_model)
    output = open_output(plan.output)
    processes.join()
    base_model = processes.from_first(lambda: identify_base_model(plan, base_folder))
    identity = result_identity(plan)
    finished = processes.from_first(
        lambda: artifact.recall(output, identity, prepared.receipt, base_model.digest)
    )
    if finished is not None:
        log.info("already trained: %s", finished.artifact.uri)
        board.training(**dict(finished.progress))
        return processes.from_first(lambda: in_registry(plan, output, finished))

    processes.from_first(output.require_writable)
    checkpoints = saved.checkpoints_of(output, identity, base_model.digest)
    found = newest(checkpoints)
    run = Run(
        plan=plan,
        output=output,
        identity=identity,
        base_folder=base_folder,
        base_model=base_model,
        prepared=prepared,
        prepared_folder=examples_folder,
        examples=dev_slice(prepared.train, plan.training.seed),
        checkpoints=checkpoints,
        found=found,
        attempts=processes.from_first(
            lambda: checkpoints.begin(
                found.step if found else 0, (plan.memory.micro_batch_size, processes.world_size())
            )
        ),
        started_at=started_at,
    )
    board.training(attempt=len(run.attempts))
    outcome = train_and_publish(run, board)
    processes.part()
    return outcome


def train_and_publish(run: Run, board: ProgressBoard) -> TrainingOutcome:
    from tunesmith_trainer.train.assembly import build_trainer

    plan = run.plan
    chat = load_chat_format(run.base_folder, plan.base_model.uri)
    train_examples, dev_examples = tokenise(plan, run.examples, chat)
    with (
        TemporaryDirectory(prefix="training-", dir=scratch_folder()) as scratch,
        tensorboard_folder(run) as tensorboard,
    ):
        trainer = build_trainer(
            plan,
            run.base_folder,
            train_examples,
            dev_examples,
            Path(scratch),
            integrations(plan, str(tensorboard)),
        )
        trainer.checkpoints = run.checkpoints
        with stops_at_the_end_of_a_step() as stop:
            run_to_the_end(trainer, run, board, stop)
        return publish(run, trainer, chat, board)


@contextmanager
def tensorboard_folder(run: Run) -> Iterator[Path]:
    """On a volume the files can be watched as they grow; into a bucket they are put at the end."""
    name = f"{TENSORBOARD_FOLDER}/{saved.short(run.identity)}"
    if isinstance(run.output, FolderStore):
        yield run.output.path / name
        return
    with run.output.staging() as staging:
        yield staging
        if processes.is_first() and any(staging.iterdir()):
            run.output.put(staging, name)


def run_to_the_end(
    trainer: LastingTrainer, run: Run, board: ProgressBoard, stop: StopRequest
) -> None:
    """Train until the last step, or until more is of no use. Raises Preempted when told to stop."""
    from transformers import TrainerState

    from tunesmith_trainer.train.keeping import Keeping
    from tunesmith_trainer.train.lasting import STATE_FILE, is_exhausted
    from tunesmith_trainer.train.watch import Watch

    training = run.plan.training
    patience = training.early_stopping_patience
    steps = trainer.order.steps
    trainer.add_callback(Watch(board, trainer.order))
    trainer.add_callback(
        Keeping(
            stop,
            steps=steps,
            minutes=training.checkpoint_minutes,
            patience=patience,
            evaluates=bool(run.examples.dev),
        )
    )
    folder = None
    if run.found is not None:
        folder = str(run.found.folder)
        log.info("going on from the checkpoint of step %d", run.found.step)
        state = TrainerState.load_from_json(f"{folder}/{STATE_FILE}")
        if is_exhausted(state, patience):
            trainer.args.max_steps = state.global_step
    trainer.train(resume_from_checkpoint=folder)
    state = trainer.state
    if stop.known and state.global_step < state.max_steps and not is_exhausted(state, patience):
        raise Preempted


def publish(
    run: Run, trainer: LastingTrainer, chat: ChatFormat, board: ProgressBoard
) -> TrainingOutcome:
    """The weights of the best step, with everything that tells of them."""
    from tunesmith_trainer.train.result import Result, write_result
    from tunesmith_trainer.train.training_state import gathered_weights

    plan, output = run.plan, run.output
    board.training(phase=TrainingPhase.SAVING, eta=None)
    last = trainer.state.global_step
    published_step = trainer.take_best()
    learned = gathered_weights(trainer.bare_model())

    def written() -> TrainingOutcome:
        progress = board.training()
        result = Result(
            base_folder=run.base_folder,
            prepared_folder=run.prepared_folder,
            chat=chat,
            lineage=lineage_of(
                plan,
                run.base_model,
                DevSliceLineage(rows=len(run.examples.dev), digest=run.examples.digest),
                RunLineage(
                    attempts=len(run.attempts),
                    resumed_from_step=run.found.step if run.found else 0,
                    published_step=published_step,
                    last_step=last,
                    stopped_early=last < trainer.order.steps * plan.training.epochs,
                    processes=processes.world_size(),
                    peak_memory_bytes=progress.peak_memory_bytes,
                    tokens_per_second=progress.tokens_per_second,
                ),
                device=str(trainer.args.device),
                compute_type=str(compute_type(trainer.args.device)).removeprefix("torch."),
                started_at=run.started_at,
            ),
            history=trainer.state.log_history,
            attempts=run.attempts,
        )
        name, digest = artifact.publish(
            output,
            lambda staging: write_result(staging, result, trainer.bare_model(), learned),
            artifact.digest_of(result.kind),
        )
        is_adapter = result.kind is ArtifactKind.ADAPTER
        outcome = TrainingOutcome(
            artifact=Artifact(
                kind=result.kind,
                uri=f"{output.uri}/{name}",
                digest=digest,
                base_model_digest=run.base_model.digest,
                rank=plan.lora.rank if is_adapter else None,
                report=REPORT_FILE,
            ),
            dataset=run.prepared.receipt,
            progress=board.training(phase=TrainingPhase.DONE, percent=100),
        )
        artifact.remember(output, run.identity, outcome)
        saved.forget(output, run.identity)
        log.info("published %s (%s)", outcome.artifact.uri, digest)
        return in_registry(plan, output, outcome)

    return processes.from_first(written)


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


def newest(checkpoints: Checkpoints) -> Checkpoint | None:
    """The same one on every process: the first chooses, and the others fetch what it chose."""
    mine = checkpoints.newest() if processes.is_first() else None
    step = processes.from_first(lambda: mine.step if mine else None)
    if step is None:
        return None
    return mine or checkpoints.at(step)


def identify_base_model(plan: TrainingPlan, folder: Path) -> BaseModelLineage:
    began = time.monotonic()
    digest = digests.base_model_digest(folder)
    log.info("base model %s, read in %.1f s", digest, time.monotonic() - began)
    return BaseModelLineage(uri=plan.base_model.uri, digest=digest, revision=hub_revision(folder))


def tokenise(
    plan: TrainingPlan, examples: DevSlice, chat: ChatFormat
) -> tuple[list[Example], list[Example]]:
    """What to train on, and what to choose the best epoch by."""
    train_examples = [chat.example(conversation) for conversation in examples.train]
    dev_examples = [chat.example(conversation) for conversation in examples.dev]
    require_length([*train_examples, *dev_examples], plan.training.max_length)
    tokens = sum(len(example.tokens) for example in train_examples)
    learned = sum(len(example.tokens) - example.prompt_length for example in train_examples)
    log.info("%d tokens to train on, %d of them answers", tokens, learned)
    return train_examples, dev_examples
