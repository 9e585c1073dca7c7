"""The preparation: a folder that training can trust, or a sentence that says why not."""

from __future__ import annotations

import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.digests import files_digest
from tunesmith.api.objects import HeldOut
from tunesmith.api.trainer_contract import (
    PLAN_READER,
    PlannedDataset,
    PlannedSource,
    PreparationOutcome,
    PreparationPlan,
    Reason,
    TerminationMessage,
)

pytest.importorskip("transformers")
pytest.importorskip("rensa")

from tunesmith_trainer.data.chat import load_chat_format
from tunesmith_trainer.data.dataset import read_dataset
from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.data.split import prompt_examples, split_and_deduplicate
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.main import carry_out
from tunesmith_trainer.prepare.prepared import (
    examples_digest,
    prepared_digest,
    prepared_folder,
    read_prepared,
)
from tunesmith_trainer.prepare.recipe import prepare
from tunesmith_trainer.prepare.review import stretches
from tunesmith_trainer.progress import ProgressBoard

FILES = ["heldout.jsonl", "prompt-examples.jsonl", "receipt.json", "review.html", "train.jsonl"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Rows = list[dict[str, Any]]


def sentence(seed: int, count: int = 12) -> str:
    source = random.Random(seed)
    return " ".join("".join(source.choices(LETTERS, k=4)) for _ in range(count))


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def different(count: int) -> Rows:
    return [row(sentence(seed), sentence(seed + 10_000, 3)) for seed in range(count)]


def write(path: Path, rows: Rows) -> None:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))


def plan_for(model: Path, folder: Path, **changes: Any) -> PreparationPlan:
    raw = {
        "kind": "Preparation",
        "owner": "team/job",
        "baseModel": {"uri": "pvc://models/tiny", "path": str(model)},
        "dataset": {"uri": "pvc://data/rows.jsonl", "path": str(folder / "rows.jsonl")},
        "heldOut": {"fraction": 0.2},
        "nearDuplicates": {},
        "maxLostTokens": 0.01,
        "reviewExamples": 10,
        "method": "LoRA",
        "lora": {},
        "training": {"maxLength": 256},
        "hardware": {},
        "output": {"uri": "pvc://adapters/team/job", "path": str(folder / "out")},
        **changes,
    }
    plan = PLAN_READER.validate_python(raw)
    assert isinstance(plan, PreparationPlan)
    return plan


def run(model: Path, folder: Path, rows: Rows, **changes: Any) -> tuple[PreparationOutcome, Path]:
    write(folder / "rows.jsonl", rows)
    outcome = prepare(plan_for(model, folder, **changes), ProgressBoard())
    return outcome, folder / "out" / "prepared" / outcome.uri.rsplit("/", 1)[-1]


def test_the_folder_holds_the_examples_their_receipt_and_a_page(
    tiny_model: Path, tmp_path: Path
) -> None:
    outcome, folder = run(tiny_model, tmp_path, different(40))
    digest = outcome.dataset.digest
    assert outcome.uri == f"pvc://adapters/team/job/prepared/{digest.removeprefix('sha256:')[:16]}"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert (outcome.dataset.rows, outcome.dataset.held_out_rows) == (40, 8)
    assert outcome.dataset.train_rows == 32
    # What a person can check by hand.
    assert digest == files_digest(folder, ["train.jsonl", "heldout.jsonl"])
    assert DatasetReceipt.model_validate_json((folder / "receipt.json").read_bytes()) == (
        outcome.dataset
    )
    assert outcome.memory.micro_batch_size >= 1


def test_the_training_reads_what_the_preparation_wrote(tiny_model: Path, tmp_path: Path) -> None:
    outcome, folder = run(tiny_model, tmp_path, different(40))
    source = PlannedSource(uri=outcome.uri, path=str(folder))
    assert prepared_folder(source) == folder
    prepared = read_prepared(folder, outcome.uri, outcome.dataset)
    assert len(prepared.train) == outcome.dataset.train_rows
    assert len(prepared.held_out) == outcome.dataset.held_out_rows
    with (folder / "train.jsonl").open("a") as file:
        file.write(json.dumps(row("one more", "row")) + "\n")
    with pytest.raises(TrainerError) as raised:
        read_prepared(folder, outcome.uri, outcome.dataset)
    assert raised.value.reason is Reason.PREPARED_DATA_CHANGED


def test_the_commit_of_a_base_model_of_the_hub_is_told(tiny_model: Path, tmp_path: Path) -> None:
    """The hub's cache keeps a repository's files in a folder of that name."""
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / "0123456789abcdef"
    shutil.copytree(tiny_model, snapshot)
    outcome, _ = run(snapshot, tmp_path, different(40))
    assert outcome.base_model_revision == "0123456789abcdef"
    outcome, _ = run(tiny_model, tmp_path, different(40))
    assert outcome.base_model_revision is None


def test_no_weights_are_needed(tiny_model: Path, tmp_path: Path) -> None:
    """A model of 140 GB is not downloaded to count tokens."""
    described = tmp_path / "described"
    described.mkdir()
    for file in tiny_model.glob("*.json*"):
        (described / file.name).write_bytes(file.read_bytes())
    for file in tiny_model.glob("*.jinja"):
        (described / file.name).write_bytes(file.read_bytes())
    outcome, _ = run(described, tmp_path, different(20))
    assert outcome.memory.predicted_peak_bytes


def test_the_held_out_rows_are_those_that_the_evaluation_computes_from_the_file(
    tiny_model: Path, tmp_path: Path
) -> None:
    """And so are the rows for choosing a prompt, although some of them may be dropped later."""
    rows = different(40)
    rows += [row(f"{each['messages'][0]['content']} so", "x") for each in rows[:10]]
    _, folder = run(tiny_model, tmp_path, rows)
    read = read_dataset(tmp_path / "rows.jsonl", PlannedDataset(uri="x"))
    split = split_and_deduplicate(read, HeldOut(fraction=0.2))

    def lines(name: str) -> list[str]:
        return (folder / name).read_text().splitlines()

    assert lines("heldout.jsonl") == [each.to_line() for each in split.held_out]
    chosen = prompt_examples(split.train, HeldOut().seed)
    assert lines("prompt-examples.jsonl") == [each.to_line() for each in chosen]


def test_multiple_choice_questions_are_kept_out_of_training(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = different(40)
    write(tmp_path / "all.jsonl", rows)
    read = read_dataset(tmp_path / "all.jsonl", PlannedDataset(uri="x"))
    split = split_and_deduplicate(read, HeldOut(fraction=0.2))
    leaked = split.train[0]
    quiz = {"question": leaked.question[0].content, "choices": ["yes", "no"], "answer": "A"}
    write(tmp_path / "quiz.jsonl", [quiz])
    outcome, _ = run(
        tiny_model,
        tmp_path,
        rows,
        decontaminateAgainst=[{"uri": "pvc://quiz", "path": str(tmp_path / "quiz.jsonl")}],
    )
    assert outcome.dataset.contaminated_rows == 1


def test_every_row_is_accounted_for(tiny_model: Path, tmp_path: Path) -> None:
    rows = different(60)
    longer = [row(sentence(500 + seed, 30), "yes") for seed in range(5)]
    copies = [
        row(f"{each['messages'][0]['content']} indeed", "yes") for each in longer for _ in "12"
    ]
    leak = row(f"{sentence(900)} {sentence(901)}", "other")
    write(tmp_path / "test.jsonl", [row(sentence(900), "x")])
    outcome, folder = run(
        tiny_model,
        tmp_path,
        [*rows, *longer, *copies, leak, row(sentence(1000, 80), "too long")],
        decontaminateAgainst=[
            {"uri": "pvc://data/test.jsonl", "path": str(tmp_path / "test.jsonl")}
        ],
        maxLostTokens=0.2,
    )
    found = outcome.dataset
    assert found.audit is not None
    assert found.rows == 60 + 5 + 10 + 1 + 1
    assert found.duplicate_rows == 5
    assert found.audit.too_long_rows == 1
    assert found.near_duplicate_rows + found.contaminated_rows >= 5
    assert found.rows == sum(
        (
            found.held_out_rows,
            found.duplicate_rows,
            found.near_duplicate_rows,
            found.contaminated_rows,
            found.audit.too_long_rows,
            found.train_rows,
        )
    )
    receipt = json.loads((folder / "receipt.json").read_text())
    assert receipt["contamination"]["pvc://data/test.jsonl"] == {"SharedGram": 1}
    leaked = Conversation(
        tuple(Message(Role(each["role"]), each["content"]) for each in leak["messages"])
    )
    assert leaked.digest() in receipt["dropped"]["contaminated"]
    assert sentence(900) not in json.dumps(receipt)


def test_the_dataset_is_not_contaminated_by_itself(tiny_model: Path, tmp_path: Path) -> None:
    itself = {"uri": "pvc://data/rows.jsonl", "path": str(tmp_path / "rows.jsonl")}
    outcome, _ = run(tiny_model, tmp_path, different(20), decontaminateAgainst=[itself])
    assert outcome.dataset.contaminated_rows == 0


def test_near_duplicates_can_be_kept(tiny_model: Path, tmp_path: Path) -> None:
    rows = different(20)
    rows += [row(f"{sentence(1, 30)} {word}", "yes") for word in ("so", "thus", "then")]
    settings = {"heldOut": {"fraction": 0.1, "seed": 3}}
    kept, _ = run(tiny_model, tmp_path, rows, nearDuplicates={"enabled": False}, **settings)
    dropped, _ = run(tiny_model, tmp_path, rows, **settings)
    assert kept.dataset.near_duplicate_rows == 0
    assert dropped.dataset.near_duplicate_rows >= 1
    assert kept.dataset.digest != dropped.dataset.digest


def test_the_order_of_the_file_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    rows = different(30)
    rows += [row(f"{sentence(seed, 30)} indeed", "yes") for seed in (1, 1, 2, 2)]
    rows += [row(f"{sentence(seed, 30)} truly", "yes") for seed in (1, 2)]
    first, _ = run(tiny_model, tmp_path, rows)
    second, _ = run(tiny_model, tmp_path, random.Random(4).sample(rows, len(rows)))
    assert first.dataset == second.dataset
    assert first.uri == second.uri


def test_a_second_attempt_finds_the_work_done_and_mends_what_was_changed(
    tiny_model: Path, tmp_path: Path
) -> None:
    _, folder = run(tiny_model, tmp_path, different(20))
    made = (folder / "review.html").stat().st_mtime_ns
    again, _ = run(tiny_model, tmp_path, different(20))
    assert (folder / "review.html").stat().st_mtime_ns == made
    (folder / "train.jsonl").write_text("")
    run(tiny_model, tmp_path, different(20))
    assert prepared_digest(folder) == again.dataset.digest
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_refused_dataset_leaves_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as raised:
        run(tiny_model, tmp_path, different(20), training={"maxLength": 16})
    assert raised.value.reason is Reason.EXAMPLES_TOO_LONG
    assert list((tmp_path / "out").iterdir()) == []


def test_rows_that_are_all_one_are_too_few(tiny_model: Path, tmp_path: Path) -> None:
    """Without template, as there are no more of them than a group may have."""
    text = sentence(1, 40)
    rows = [row(f"{text} {word}", "yes") for word in sentence(2, 10).split()]
    with pytest.raises(TrainerError) as raised:
        run(tiny_model, tmp_path, rows)
    assert raised.value.reason is Reason.DATASET_TOO_SMALL
    assert raised.value.message == (
        "0 of 8 training rows are left: 7 were near-duplicates, 1 shared text with what the model "
        "is judged by, 0 were too long. At least 5 are needed: add rows, or change "
        "dataset.nearDuplicates, dataset.decontaminateAgainst or training.maxLength"
    )


def test_the_digest_of_a_folder_is_known_before_it_is_written(
    tiny_model: Path, tmp_path: Path
) -> None:
    _, folder = run(tiny_model, tmp_path, different(20))

    def rows(name: str) -> list[Conversation]:
        return read_dataset(folder / name, PlannedDataset(uri="x"))

    assert prepared_digest(folder) == examples_digest(rows("train.jsonl"), rows("heldout.jsonl"))


def test_a_plan_of_this_kind_is_carried_out(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", different(20))
    board = ProgressBoard()
    message = carry_out(plan_for(tiny_model, tmp_path), board)
    assert message.preparation is not None
    assert board.report().dataset == message.preparation.dataset
    assert TerminationMessage.model_validate_json(message.to_line()) == message


# --- the page ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page, and the text of those with a class."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._classes: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "span":
            self._classes.append(dict(attributes).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._classes.pop()

    def handle_data(self, data: str) -> None:
        if self._classes:
            self.texts.setdefault(self._classes[-1], []).append(data)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> </pre> {{ 7*7 }} \u202e\x1b &amp;"


def test_nothing_in_the_data_becomes_markup(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(f"{sentence(seed)} {HOSTILE}", f"{HOSTILE} {seed}") for seed in range(20)]
    _, folder = run(tiny_model, tmp_path, rows)
    html = (folder / "review.html").read_text()
    page = Page(html)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "img", "link", "iframe", "object"}
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert "default-src 'none'" in html
    assert "://" not in html.replace("pvc://", "")
    learned = " ".join(page.texts["learned"])
    # What would hide or turn around its surroundings is spelled out.
    assert HOSTILE.replace("\x1b", "\u241b").replace("\u202e", "[U+202E]") in learned


def test_the_page_shows_what_is_learned_and_the_control_tokens(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = [row(sentence(seed), f"answer number {seed} ünïcödé 你好 🙂") for seed in range(20)]
    outcome, folder = run(tiny_model, tmp_path, rows, reviewExamples=5)
    html = (folder / "review.html").read_text()
    page = Page(html)
    learned = [each for each in page.texts["learned"] if each != "This is learned"]
    assert len(learned) == 5
    assert all(each.startswith("answer number") and each.endswith("🙂") for each in learned)
    assert page.texts["learned special"] == ["<|end|>"] * 5
    assert page.texts["special"].count("<|bos|>") == 5
    assert outcome.dataset.digest in html
    assert "tunesmith.dev/approved-data" in html
    assert "kubectl annotate finetunejob job --namespace team" in html
    assert "of rows.jsonl" in html


def test_what_is_shown_is_the_token_sequence_and_nothing_else(tiny_model: Path) -> None:
    chat = load_chat_format(tiny_model, "pvc://models/tiny")
    conversation = Conversation(
        (
            Message(Role.SYSTEM, "be brief"),
            Message(Role.USER, "  two  spaces\n\nünï"),
            Message(Role.ASSISTANT, "so 你 long"),
        )
    )
    example = chat.example(conversation)
    shown = stretches(example, chat)
    assert "".join(each.text for each in shown) == chat.tokenizer.decode(example.tokens)
    assert "".join(each.text for each in shown if each.learned) == "so 你 long<|end|>"
    assert [each.text for each in shown if each.special][:2] == ["<|bos|>", "<|start|>"]


def test_a_very_long_text_loses_its_middle_and_says_so(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row(f"{sentence(seed, 10)} {'x' * 30_000}", "yes") for seed in range(12)]
    _, folder = run(tiny_model, tmp_path, rows, training={"maxLength": 40_000}, reviewExamples=2)
    html = (folder / "review.html").read_text()
    assert "characters not shown" in html
    assert len(html) < 60_000
