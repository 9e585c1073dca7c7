"""The preparation, from a dataset to a folder that training can trust. Reads from top to bottom.

It needs a CPU and no GPU, and refuses what would waste one: data that is malformed, too little, cut
short or without anything to learn, and a training that does not fit into its memory.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from tunesmith.api.job_status import TrainingPhase
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PREPARED_FOLDER,
    PROMPT_EXAMPLES_FILE,
    RECEIPT_FILE,
    REVIEW_FILE,
    TRAIN_FILE,
    PreparationOutcome,
    PreparationPlan,
    Reason,
)

from tunesmith_trainer import sources
from tunesmith_trainer.data.audit import Audited, Limits, audit
from tunesmith_trainer.data.chat import ChatFormat, load_chat_format
from tunesmith_trainer.data.contamination import by_reason
from tunesmith_trainer.data.dataset import read_dataset, require_enough
from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.data.split import Split, prompt_examples, split_and_deduplicate
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.lineage import hub_revision
from tunesmith_trainer.output import open_output, staged
from tunesmith_trainer.prepare.cleaning import Cleaned, clean
from tunesmith_trainer.prepare.evaluation_sets import evaluation_sets
from tunesmith_trainer.prepare.memory import memory_plan
from tunesmith_trainer.prepare.prepared import (
    Prepared,
    as_lines,
    examples_digest,
    prepared_digest,
)
from tunesmith_trainer.prepare.receipt import PreparationReceipt, some
from tunesmith_trainer.prepare.review import render_review, review_sample, show
from tunesmith_trainer.progress import ProgressBoard

log = logging.getLogger(__name__)

#: The smallest dataset that is taken, half of it held out.
MINIMUM_TRAIN_ROWS = 5


def prepare(plan: PreparationPlan, board: ProgressBoard) -> PreparationOutcome:
    """Make the prepared folder, or find that it is there already. Raises TrainerError."""
    board.training(phase=TrainingPhase.PREPARING)
    output = open_output(plan.output)
    output.require_writable()
    base_folder = sources.described_model(plan.base_model)
    chat = load_chat_format(base_folder, plan.base_model.uri)
    memory, doubts = memory_plan(plan, base_folder)

    dataset_file = sources.dataset_file(plan.dataset)
    rows = read_dataset(dataset_file, plan.dataset)
    require_enough(rows, plan.dataset)
    places = RowPlaces(plan.dataset.uri, rows)
    split = split_and_deduplicate(rows, plan.held_out)
    cleaned = clean(split.train, evaluation_sets(plan, split), plan.near_duplicates)
    audited = audit(
        cleaned.train,
        chat,
        Limits(plan.training.max_length, plan.max_lost_tokens),
        lambda row: places.of(cleaned.train[row]),
    )
    train = [cleaned.train[row] for row in audited.kept]
    require_rows(train, split, cleaned)

    receipt = receipt_of(split, cleaned, audited, train).model_copy(
        update={"revision": hub_revision(dataset_file)}
    )
    prepared = Prepared(
        train, split.held_out, prompt_examples(split.train, plan.held_out.seed), receipt
    )
    name = f"{PREPARED_FOLDER}/{receipt.digest.removeprefix('sha256:')[:16]}"
    if not holds(output.folder(name), receipt):
        with staged(output, name) as folder:
            write(folder, plan, prepared, receipt, chat, places)
    uri = f"{output.uri}/{name}"
    board.dataset(receipt.for_status())
    log.info("prepared %s: %d rows to train on", uri, receipt.train_rows)
    return PreparationOutcome(
        uri=uri,
        dataset=receipt.for_status(),
        memory=memory,
        base_model_revision=hub_revision(base_folder),
        warnings=[*receipt.warnings, *doubts],
    )


class RowPlaces:
    """Where a user finds a row: its number in the file, from 1."""

    def __init__(self, uri: str, rows: list[Conversation]) -> None:
        self._file = uri.rsplit("/", 1)[-1]
        self._numbers: dict[Conversation, int] = {}
        for number, row in enumerate(rows, start=1):
            self._numbers.setdefault(row, number)

    def of(self, row: Conversation) -> str:
        return f"row {self._numbers[row]} of {self._file}"


def require_rows(train: list[Conversation], split: Split, cleaned: Cleaned) -> None:
    """Raises TrainerError if cleaning has left next to nothing."""
    if len(train) < MINIMUM_TRAIN_ROWS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL,
            f"{len(train)} of {len(split.train)} training rows are left: "
            f"{len(cleaned.near_duplicates)} were near-duplicates, {len(cleaned.contaminated)} "
            f"shared text with what the model is judged by, {len(cleaned.train) - len(train)} were "
            f"too long. At least {MINIMUM_TRAIN_ROWS} are needed: add rows, or change "
            "dataset.nearDuplicates, dataset.decontaminateAgainst or training.maxLength",
        )


def receipt_of(
    split: Split, cleaned: Cleaned, audited: Audited, train: list[Conversation]
) -> PreparationReceipt:
    kept = set(audited.kept)
    dropped = {
        "nearDuplicate": cleaned.near_duplicates,
        "contaminated": cleaned.contaminated,
        "tooLong": [row for number, row in enumerate(cleaned.train) if number not in kept],
    }
    counts = split.receipt.model_dump()
    counts |= {
        "digest": examples_digest(train, split.held_out),
        "near_duplicate_rows": len(cleaned.near_duplicates),
        "contaminated_rows": len(cleaned.contaminated),
        "train_rows": len(train),
        "audit": audited.audit,
        "contamination": by_reason(cleaned.contamination),
        "dropped": {
            name: some([row.digest() for row in rows]) for name, rows in dropped.items() if rows
        },
        "warnings": [*audited.warnings, *cleaning_warnings(split, cleaned)],
    }
    return PreparationReceipt.model_validate(counts)


def cleaning_warnings(split: Split, cleaned: Cleaned) -> list[str]:
    """What somebody should know who expected to train on all rows."""
    warnings = []
    for rows, what in (
        (cleaned.near_duplicates, "are near-duplicates of others"),
        (cleaned.contaminated, "share text with what the model is judged by"),
    ):
        if len(rows) > len(split.train) / 4:
            warnings.append(
                f"{len(rows)} of {len(split.train)} training rows {what} and were dropped: see "
                "on the review page whether that is what you want"
            )
    return warnings


def holds(folder: Path | None, receipt: PreparationReceipt) -> bool:
    """Whether an earlier attempt left the same, whole and unchanged."""
    if folder is None:
        return False
    try:
        written = PreparationReceipt.model_validate_json((folder / RECEIPT_FILE).read_bytes())
        return (
            written == receipt
            and prepared_digest(folder) == receipt.digest
            and (folder / REVIEW_FILE).is_file()
            and (folder / PROMPT_EXAMPLES_FILE).is_file()
        )
    except (OSError, ValueError):
        return False


def write(
    folder: Path,
    plan: PreparationPlan,
    prepared: Prepared,
    receipt: PreparationReceipt,
    chat: ChatFormat,
    places: RowPlaces,
) -> None:
    for name, rows in (
        (TRAIN_FILE, prepared.train),
        (HELD_OUT_FILE, prepared.held_out),
        (PROMPT_EXAMPLES_FILE, prepared.prompt_examples),
    ):
        (folder / name).write_text(as_lines(rows), encoding="utf-8")
    text = json.dumps(receipt.to_json(), indent=2) + "\n"
    (folder / RECEIPT_FILE).write_text(text, encoding="utf-8")
    sample = review_sample(prepared.train, plan.review_examples, plan.held_out.seed)
    examples = [show(prepared.train[row], places.of(prepared.train[row]), chat) for row in sample]
    page = render_review(plan, receipt, examples)
    (folder / REVIEW_FILE).write_text(page, encoding="utf-8")
