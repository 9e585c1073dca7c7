"""What the trainer accepts as a dataset, and what it says about the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunesmith.api.trainer_contract import PlannedDataset, Reason
from tunesmith_trainer.data.dataset import read_dataset, require_enough
from tunesmith_trainer.data.formats import rows_digest
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.sources import dataset_file

GOOD = {
    "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
    "source": "a key that nobody asked for",
}


def source(path: Path, **fields: object) -> PlannedDataset:
    return PlannedDataset(uri="pvc://data/tickets.jsonl", path=str(path), **fields)


def messages(*pairs: tuple[object, object]) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in pairs]})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"messages": [', "invalid JSON at column"),
        ("[1, 2]", "a list where a JSON object belongs: write one object per line"),
        ('{"prompt": "a"}', "found prompt: write"),
        ("{}", "found no keys: write"),
        ('{"messages": []}', '"messages" must be a list of messages'),
        ('{"messages": "hello"}', '"messages" must be a list of messages'),
        ('{"messages": ["hello"]}', "messages[0] must be an object"),
        (messages(("user", "a"), ("bot", "b")), 'messages[1] has the role "bot": use system'),
        (messages(("assistant", "a"), ("user", "b")), "the last message is from user: end with"),
        (messages(("assistant", "a")), "no message from user: add the question"),
        (messages(("user", "a"), ("assistant", " ")), 'messages[1] "content" is empty: fill it in'),
        (messages(("user", 7), ("assistant", "b")), 'messages[0] "content" is int: write it as'),
        ('{"messages": [{"role": "user"}]}', 'messages[0] has no "content": add it'),
        (
            messages(("user", "a"), ("system", "s"), ("assistant", "b")),
            "a system message after the first message: put it first",
        ),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_malformed_row_is_named_with_its_line_and_a_remedy(
    tmp_path: Path, line: str | bytes, complaint: str
) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(b"\n\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(TrainerError) as raised:
        read_dataset(path, source(path))
    assert raised.value.reason is Reason.DATASET_MALFORMED
    assert raised.value.message.startswith("tickets.jsonl line 3: ")
    assert complaint in raised.value.message


def test_alpaca_rows_become_a_question_and_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.jsonl"
    row = {"instruction": "Translate", "input": "Hund", "output": "dog"}
    path.write_text(json.dumps(row) + "\n")
    (conversation,) = read_dataset(path, source(path))
    assert [(m.role.value, m.content) for m in conversation.messages] == [
        ("user", "Translate\n\nHund"),
        ("assistant", "dog"),
    ]


def test_an_alpaca_row_without_input_is_only_its_instruction(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.jsonl"
    path.write_text(json.dumps({"instruction": "Say hi", "input": "", "output": "hi"}) + "\n")
    (conversation,) = read_dataset(path, source(path))
    assert conversation.question[0].content == "Say hi"


def conversation(tmp_path: Path, row: object, **fields: object) -> list[tuple[str, str]]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (found,) = read_dataset(path, source(path, **fields))
    return [(message.role.value, message.content) for message in found.messages]


def test_share_gpt_turns_become_messages(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
    expected = [("user", "2+2?"), ("assistant", "4")]
    assert conversation(tmp_path, {"conversations": turns}) == expected
    system = {"from": "system", "value": "Be brief."}
    first = ("system", "Be brief.")
    assert conversation(tmp_path, {"conversations": [system, *turns]}) == [first, *expected]
    assert conversation(tmp_path, {"conversations": turns, "system": "Be brief."}) == [
        first,
        *expected,
    ]
    assert conversation(tmp_path, {"conversations": turns, "system": ""}) == expected


def test_a_prompt_and_its_completion_become_messages(tmp_path: Path) -> None:
    expected = [("user", "2+2?"), ("assistant", "4")]
    assert conversation(tmp_path, {"prompt": "2+2?", "completion": "4"}) == expected
    prompt = [{"role": "user", "content": "2+2?"}]
    completion = [{"role": "assistant", "content": "4"}]
    assert conversation(tmp_path, {"prompt": prompt, "completion": completion}) == expected
    assert conversation(tmp_path, {"prompt": prompt, "completion": "4"}) == expected


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"conversations": []}, '"conversations" must be a list of turns: write'),
        ({"conversations": [7]}, 'conversations[0] must be an object with "from" and "value"'),
        (
            {"conversations": [{"from": "tool", "value": "a"}]},
            'conversations[0] is "from" "tool": use system, human, user, gpt, assistant',
        ),
        (
            {"conversations": [{"role": "user", "content": "a"}]},
            'conversations[0] is "from" null',
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}]},
            "the last message is from user: end with",
        ),
        ({"conversations": [{"from": "human"}]}, 'conversations[0] has no "value": add it'),
        ({"prompt": "a", "completion": ""}, '"completion" is empty: fill it in'),
        ({"prompt": [], "completion": "a"}, '"prompt" must be a list of messages: write'),
        (
            {"prompt": "a", "completion": [{"role": "user", "content": "b"}]},
            "the last message is from user: end with",
        ),
        (
            {"prompt": [{"role": ["user"], "content": "b"}], "completion": "a"},
            'prompt[0] has the role ["user"]: use system, user or assistant',
        ),
    ],
)
def test_a_malformed_row_of_the_other_formats_is_named_too(
    tmp_path: Path, row: object, complaint: str
) -> None:
    with pytest.raises(TrainerError) as raised:
        conversation(tmp_path, row)
    assert raised.value.message.startswith("rows.jsonl line 1: ")
    assert complaint in raised.value.message


def test_a_format_that_is_named_is_the_only_one_read(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match='has no "prompt": add it'):
        conversation(tmp_path, GOOD, format="PromptCompletion")
    with pytest.raises(TrainerError, match='"conversations" must be a list'):
        conversation(tmp_path, GOOD, format="ShareGPT")


def test_the_format_of_the_first_row_holds_for_all(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    alpaca = {"instruction": "a", "input": "", "output": "b"}
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(alpaca)}\n")
    with pytest.raises(TrainerError, match=r"mixed.jsonl line 2: \"messages\" must be a list"):
        read_dataset(path, source(path))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n\n")
    with pytest.raises(TrainerError) as raised:
        read_dataset(path, source(path))
    assert raised.value.reason is Reason.DATASET_EMPTY


def test_a_missing_file_is_named_with_what_lies_there_instead(tmp_path: Path) -> None:
    (tmp_path / "ticket.jsonl").touch()
    with pytest.raises(TrainerError, match=r"its folder has ticket\.jsonl") as raised:
        dataset_file(source(tmp_path / "tickets.jsonl"))
    assert raised.value.reason is Reason.DATASET_NOT_FOUND


def test_ten_copies_of_a_row_are_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "copies.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 10)
    rows = read_dataset(path, source(path))
    with pytest.raises(TrainerError, match="has 1 different rows: at least 10") as raised:
        require_enough(rows, source(path))
    assert raised.value.reason is Reason.DATASET_TOO_SMALL


def test_other_rows_than_the_plan_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    digest = rows_digest(read_dataset(path, source(path)))
    assert read_dataset(path, source(path, digest=digest))
    path.write_text(json.dumps(GOOD).replace('"4"', '"5"') + "\n")
    with pytest.raises(TrainerError) as raised:
        read_dataset(path, source(path, digest=digest))
    assert raised.value.reason is Reason.DATASET_CHANGED
