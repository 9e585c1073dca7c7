"""Multiple-choice questions of one's own: read, asked and scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.trainer_contract import Reason
from tunesmith_trainer.evaluate.choices import Choice, read_choices, rows_digest
from tunesmith_trainer.failure import TrainerError

ROW = {"question": "Which is a metal?", "choices": ["tin", "tan", "ton"], "answer": "B"}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(folder: Path, *rows: dict[str, Any]) -> list[Choice]:
    return read_choices(written(folder, *rows), "pvc://data/questions.jsonl")


@pytest.mark.parametrize("answer", [1, "B", "b"])
def test_the_answer_is_a_number_or_a_letter(tmp_path: Path, answer: object) -> None:
    first, _ = read(tmp_path, ROW | {"answer": answer}, ROW)
    assert first.answer == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"answer": 3}, "a number from 0 to 2 or a letter from A to C"),
        ({"answer": "D"}, "a letter from A to C"),
        ({"answer": True}, '"answer" must be'),
        ({"answer": "tin"}, '"answer" must be'),
        ({"answer": None}, '"answer" must be'),
        ({"choices": ["tin"]}, "a list of 2 to 26 texts"),
        ({"choices": "tin"}, "a list of 2 to 26 texts"),
        ({"choices": [str(number) for number in range(27)]}, "a list of 2 to 26 texts"),
        ({"choices": ["tin", 4]}, r"choices\[1\] must be text"),
        ({"choices": ["tin", "tin"]}, "two choices are equal"),
        ({"question": " "}, '"question" is empty'),
        ({"subject": 4}, '"subject" must be text'),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TrainerError, match=f"questions.jsonl line 2: .*{complaint}") as raised:
        read(tmp_path, ROW, ROW | change)
    assert raised.value.reason is Reason.DATASET_MALFORMED


def test_other_rows_than_the_digest_names_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ROW, ROW)
    digest = rows_digest(read_choices(path, "pvc://data/questions.jsonl"))
    read_choices(path, "pvc://data/questions.jsonl", digest)
    written(tmp_path, ROW, ROW | {"answer": "A"})
    with pytest.raises(TrainerError, match="no longer holds the rows") as raised:
        read_choices(path, "pvc://data/questions.jsonl", digest)
    assert raised.value.reason is Reason.DATASET_CHANGED


def test_one_row_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="has 1 rows, and at least 2") as raised:
        read(tmp_path, ROW)
    assert raised.value.reason is Reason.DATASET_TOO_SMALL


def colours(count: int, subjects: int = 1) -> list[Choice]:
    return [
        Choice(f"Pick {number}.", ["red", "blue", "green"][: 2 + number % 2], 0, f"s{subject}")
        for subject in range(subjects)
        for number in range(count)
    ]


def test_questions_keep_the_order_of_the_file_unless_they_have_subjects() -> None:
    pytest.importorskip("lm_eval")
    from tunesmith_trainer.evaluate.choices import choice_suite

    plain = [Choice(choice.question, choice.choices, 0) for choice in colours(5)]
    suite = choice_suite("mine", plain, max_items=3)
    assert [question.prompt for question in suite.questions] == [each.prompt for each in plain]
    assert (suite.first, suite.metric, suite.approximate) == (3, Metric.ACCURACY, False)

    mixed = choice_suite("mine", colours(4, subjects=3), max_items=500)
    groups = [question.group for question in mixed.questions]
    assert groups == ["s0", "s1", "s2"] * 4
    assert mixed.first == 12


def test_prompts_with_templates_in_them_are_left_as_they_are() -> None:
    pytest.importorskip("lm_eval")
    from tunesmith_trainer.evaluate.choices import choice_suite

    trap = Choice("What is {{ 7*7 }}?", ["{{ 1/0 }}", "{% raw %}"], 1, "{{ subject }}")
    question, _ = choice_suite("mine", [trap, trap], max_items=2).questions
    assert question.prompt == "What is {{ 7*7 }}?\nA. {{ 1/0 }}\nB. {% raw %}\nAnswer:"
    assert (question.expected, question.group) == ("B", "{{ subject }}")


def test_the_most_likely_letter_is_the_answer(tiny_model: Path) -> None:
    """Computed a second time, by hand, from the model's own logits."""
    import torch
    from tunesmith_trainer.evaluate.choices import choice_suite
    from tunesmith_trainer.evaluate.measured import Answer, Side

    from tests.unit.trainer.two_sides import two_sides

    sides, choices = two_sides(tiny_model), colours(9)
    suite = choice_suite("mine", [replace(each, subject="") for each in choices], 500)
    suite, found = suite.between(sides), {}
    for side in (Side.BASE, Side.ADAPTER):
        expected = []
        with sides.on(side) as model, torch.inference_mode():
            for choice in choices:
                # A byte-level tokenizer: the blank and the letter are two tokens.
                tokens = model.tokenizer(f"{choice.prompt} ", return_tensors="pt")["input_ids"]
                likely = model.model(tokens).logits[0, -1]
                letters = "ABC"[: len(choice.choices)]
                numbers = model.tokenizer.convert_tokens_to_ids(list(letters))
                letter = letters[int(likely[numbers].argmax())]
                expected.append(Answer(letter, 100.0 * (letter == "A")))
        found[side] = suite.answers(side, 0, 9)
        assert found[side] == expected
    assert found[Side.BASE] != found[Side.ADAPTER]
    assert suite.answers(Side.BASE, 4, 6) == found[Side.BASE][4:6]


def test_progress_counts_questions_not_choices(tiny_model: Path) -> None:
    pytest.importorskip("torch")
    from tunesmith_trainer.evaluate.choices import choice_suite
    from tunesmith_trainer.evaluate.measured import Side

    from tests.unit.trainer.two_sides import two_sides

    counted: list[int] = []
    suite = choice_suite("mine", colours(40), max_items=500)
    suite.between(two_sides(tiny_model, counted.append)).answers(Side.BASE, 0, 40)
    assert sum(counted) == 40
    assert len(counted) > 1, "and as they come, not at the end"


def test_a_merged_model_answers_as_base_and_adapter_do(tiny_model: Path) -> None:
    pytest.importorskip("torch")
    from tunesmith_trainer.data.chat import load_chat_format
    from tunesmith_trainer.evaluate.choices import choice_suite
    from tunesmith_trainer.evaluate.measured import Side
    from tunesmith_trainer.evaluate.sides import Sides, WatchedModel

    from tests.unit.trainer.two_sides import two_sides

    switched, base = two_sides(tiny_model), two_sides(tiny_model).base
    merged = two_sides(tiny_model).base.model.merge_and_unload()
    chat = load_chat_format(tiny_model, "pvc://models/tiny")
    apart = Sides(base, WatchedModel(merged, chat, lambda _: None))
    suite = choice_suite("mine", colours(20), max_items=500)
    for side in (Side.BASE, Side.ADAPTER):
        assert suite.between(apart).answers(side, 0, 20) == suite.between(switched).answers(
            side, 0, 20
        )
    with pytest.raises(ValueError, match="only the base model is measured"):
        suite.between(Sides(base)).answers(Side.ADAPTER, 0, 1)
