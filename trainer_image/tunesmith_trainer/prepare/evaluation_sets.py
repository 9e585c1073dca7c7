"""What the model will be judged by: training may share no text with it."""

from __future__ import annotations

from pathlib import Path

from tunesmith.api.trainer_contract import PlannedDataset, PreparationPlan

from tunesmith_trainer import sources
from tunesmith_trainer.data.dataset import read_dataset
from tunesmith_trainer.data.formats import Conversation, Message, Role, asks_choices, text_of
from tunesmith_trainer.data.rows import Row, read_rows
from tunesmith_trainer.data.split import Split

HELD_OUT = "held-out"


def evaluation_sets(plan: PreparationPlan, split: Split) -> dict[str, list[Conversation]]:
    """The sets by name. A suite that asks rows of the dataset itself asks the held-out ones."""
    sets = {HELD_OUT: split.held_out}
    for each in plan.decontaminate_against:
        if each.uri != plan.dataset.uri:
            path = sources.dataset_file(each, "dataset.decontaminateAgainst")
            sets[each.uri] = asked(path, each)
    return sets


def asked(path: Path, planned: PlannedDataset) -> list[Conversation]:
    """The rows of an evaluation set. Raises TrainerError for the first that is not right."""
    if asks_choices(path):
        return [question_with_choices(row) for row in read_rows(path)]
    return read_dataset(path, planned)


def question_with_choices(row: Row) -> Conversation:
    """All choices count as the answer: training on any of them would give something away."""
    choices = row.fields["choices"]
    if not isinstance(choices, list):
        raise row.complaint('"choices" must be a list of texts')
    question = text_of(row, row.fields, "question", "")
    answers = "\n".join(str(each) for each in choices)
    return Conversation((Message(Role.USER, question), Message(Role.ASSISTANT, answers)))
