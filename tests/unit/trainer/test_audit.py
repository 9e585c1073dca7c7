"""What the audit refuses, in the words that a user reads, and what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith.api.trainer_contract import Reason

pytest.importorskip("transformers")

from tunesmith_trainer.data.audit import Limits, Tally, audit, histogram, tally_of
from tunesmith_trainer.data.chat import ChatFormat, Example, load_chat_format
from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.failure import TrainerError


def talk(question: str, answer: str) -> Conversation:
    return Conversation((Message(Role.USER, question), Message(Role.ASSISTANT, answer)))


#: 1 beginning, 3 + 4 + 1 letters and marks around the question, and so on: one token a byte.
SHORT = talk("hi", "hello")
LONG = talk("h" * 400, "hello")


@pytest.fixture
def chat(tiny_model: Path) -> ChatFormat:
    return load_chat_format(tiny_model, "pvc://models/tiny")


def place(row: int) -> str:
    return f"row {row + 1} of rows.jsonl"


def length(chat: ChatFormat, conversation: Conversation) -> int:
    return len(chat.example(conversation).tokens)


def test_a_row_that_is_too_long_is_left_out_whole_and_counted(chat: ChatFormat) -> None:
    rows = [LONG, *[SHORT] * 3000]
    found = audit(rows, chat, Limits(length=64, lost_share=0.01), place)
    assert found.kept == list(range(1, 3001))
    assert (found.audit.too_long_rows, found.audit.longest) == (1, length(chat, LONG))
    assert found.audit.lost_tokens == length(chat, LONG)
    assert found.audit.tokens == 3000 * length(chat, SHORT)
    assert found.audit.trainable_tokens == 3000 * len("hello.")
    assert found.warnings == []


def test_more_lost_tokens_than_are_allowed_are_refused(chat: ChatFormat) -> None:
    rows = [SHORT] * 9 + [LONG]
    with pytest.raises(TrainerError) as raised:
        audit(rows, chat, Limits(length=64, lost_share=0.01), place)
    lost = length(chat, LONG)
    share = lost / (9 * length(chat, SHORT) + lost)
    assert raised.value.reason is Reason.EXAMPLES_TOO_LONG
    assert raised.value.message == (
        "1 of 10 rows are longer than training.maxLength (64 tokens), and leaving them out would "
        f"lose {share:.1%} of the tokens where dataset.maxLostTokens allows 1.0%: set "
        f"training.maxLength to {lost}, shorten those rows, or raise dataset.maxLostTokens"
    )
    assert audit(rows, chat, Limits(lost, 0), place).kept == list(range(10))
    assert audit(rows, chat, Limits(64, 1), place).kept == list(range(9))


def test_an_answer_that_the_template_drops_is_refused(chat: ChatFormat) -> None:
    """As templates of reasoning models do with an answer that is all thought."""
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace(
        "message['content'] }}", "message['content'] | replace('thought', '') }}"
    )
    with pytest.raises(TrainerError) as raised:
        audit([SHORT, talk("hi", "thought"), SHORT], chat, Limits(64, 0.01), place)
    assert raised.value.reason is Reason.NOTHING_TO_LEARN
    assert raised.value.message == (
        "1 of 3 rows have no token to learn from once the chat template has written them, the "
        "first is row 2 of rows.jsonl: write an answer that the template keeps, or remove them"
    )


def test_two_beginning_tokens_are_refused(chat: ChatFormat) -> None:
    chat.tokenizer.chat_template = "{{ bos_token }}" + chat.tokenizer.chat_template
    with pytest.raises(TrainerError) as raised:
        audit([SHORT] * 3, chat, Limits(64, 0.01), place)
    assert raised.value.reason is Reason.MODEL_UNUSABLE
    assert raised.value.message == (
        "3 of 3 rows begin with two beginning tokens: let the chat template write it once"
    )


def test_a_template_without_the_beginning_token_is_told(chat: ChatFormat) -> None:
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("{{ bos_token }}", "")
    (warning,) = audit([SHORT] * 3, chat, Limits(64, 0.01), place).warnings
    assert warning.startswith("the chat template writes no beginning token in 3 of 3 rows")


def test_a_model_whose_turns_all_begin_with_that_token_is_fine(chat: ChatFormat) -> None:
    """ChatML models often name <|im_start|> as their beginning token."""
    chat.tokenizer.bos_token = "<|start|>"
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("{{ bos_token }}", "")
    assert audit([SHORT] * 3, chat, Limits(64, 0.01), place).warnings == []


def ending(chat: ChatFormat, *, ended: int, endless: int) -> Tally:
    end = next(iter(chat.stop_tokens))
    examples = [Example([1, 2, 3, end], 2)] * ended + [Example([1, 2, 3], 2)] * endless
    return tally_of(iter(examples), chat)


def test_more_than_99_of_100_rows_must_teach_the_end_of_the_turn(chat: ChatFormat) -> None:
    ending(chat, ended=99, endless=1).require_ends()
    with pytest.raises(TrainerError, match="only 98 of 100 rows end with a token") as raised:
        ending(chat, ended=98, endless=2).require_ends()
    assert raised.value.reason is Reason.MODEL_UNUSABLE


def test_control_tokens_in_the_text_are_told_with_their_place(chat: ChatFormat) -> None:
    rows = [SHORT, talk("what does <|end|> do?", "it ends a turn")]
    (warning,) = audit(rows, chat, Limits(128, 0.01), place).warnings
    assert warning == (
        "1 rows have special tokens of the model in their text, the first is row 2 of rows.jsonl: "
        "they end or begin turns where none ends or begins"
    )


@given(st.lists(st.integers(1, 131072), min_size=1))
def test_every_row_is_in_the_bar_that_its_length_belongs_to(lengths: list[int]) -> None:
    bars = histogram(lengths)
    assert len(bars) <= 16
    assert sum(bar.rows for bar in bars) == len(lengths)
    lower = 0
    for bar in bars:
        assert bar.rows == sum(lower < each <= bar.up_to for each in lengths)
        lower = bar.up_to
