"""Conversations in tokens: what is learned, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunesmith.api.trainer_contract import Reason

pytest.importorskip("transformers")

from tunesmith_trainer.data.chat import (
    IGNORED,
    ChatFormat,
    load_chat_format,
    require_length,
)
from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.failure import TrainerError

TALK = Conversation(
    (
        Message(Role.SYSTEM, "be brief"),
        Message(Role.USER, "hi"),
        Message(Role.ASSISTANT, "hello"),
        Message(Role.USER, "bye"),
        Message(Role.ASSISTANT, "so long"),
    )
)


@pytest.fixture
def chat(tiny_model: Path) -> ChatFormat:
    return load_chat_format(tiny_model, "pvc://models/tiny")


def test_only_the_last_answer_and_its_end_are_learned(chat: ChatFormat) -> None:
    example = chat.example(TALK)
    learned = [label for label in example.labels if label != IGNORED]
    assert chat.tokenizer.decode(learned) == "so long<|end|>"
    assert example.labels[-1] == chat.tokenizer.eos_token_id
    assert len(example.labels) == len(example.tokens)


def test_the_sequence_begins_with_exactly_one_beginning_token(chat: ChatFormat) -> None:
    tokens = chat.example(TALK).tokens
    assert tokens[0] == chat.tokenizer.bos_token_id
    assert tokens.count(chat.tokenizer.bos_token_id) == 1


def test_what_is_learned_is_what_will_be_asked(chat: ChatFormat) -> None:
    """The prompt of an evaluation is, token by token, the part of the example that has no loss."""
    example = chat.example(TALK)
    asked = chat.tokenizer(chat.prompt(TALK.question), add_special_tokens=False)["input_ids"]
    assert example.tokens[: example.prompt_length] == asked


def test_a_template_that_never_ends_a_turn_gets_an_end(chat: ChatFormat) -> None:
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("<|end|>", "")
    assert chat.example(TALK).tokens[-1] == chat.tokenizer.eos_token_id


def test_a_template_that_rewrites_the_question_is_refused(chat: ChatFormat) -> None:
    chat.tokenizer.chat_template = "{{ messages | length }}" + chat.tokenizer.chat_template
    with pytest.raises(TrainerError, match="renders a question differently") as raised:
        chat.example(TALK)
    assert raised.value.reason is Reason.MODEL_UNUSABLE


def test_a_template_that_refuses_a_conversation_says_why(chat: ChatFormat) -> None:
    chat.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TrainerError, match="roles must alternate") as raised:
        chat.example(TALK)
    assert raised.value.reason is Reason.DATASET_MALFORMED


def test_a_model_without_a_chat_template_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(TrainerError, match="has no chat template") as raised:
        load_chat_format(tmp_path, "pvc://models/tiny")
    assert raised.value.reason is Reason.CHAT_TEMPLATE_MISSING


def test_a_row_that_does_not_fit_is_never_cut(chat: ChatFormat) -> None:
    example = chat.example(TALK)
    length = len(example.tokens)
    require_length([example], length)
    with pytest.raises(TrainerError, match=f"set training.maxLength to {length}") as raised:
        require_length([example, example], length - 1)
    assert raised.value.reason is Reason.EXAMPLES_TOO_LONG
    assert "2 of 2 rows" in raised.value.message
