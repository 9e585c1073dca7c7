"""Training rows that share text with what the model is judged by."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_trainer.data.formats import Conversation, Message, Role

pytest.importorskip("numpy")

from tunesmith_trainer.data.contamination import (
    BOILERPLATE_ROWS,
    Contamination,
    Leak,
    by_reason,
    contaminated_rows,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def talk(*contents: str, system: str | None = None) -> Conversation:
    """User and assistant in turn."""
    roles = (Role.USER, Role.ASSISTANT)
    said = tuple(Message(roles[turn % 2], each) for turn, each in enumerate(contents))
    return Conversation((Message(Role.SYSTEM, system), *said) if system else said)


def text(seed: int, count: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices(LETTERS, k=6)) for _ in range(count)]


def sentence(seed: int, count: int = 30) -> str:
    return " ".join(text(seed, count))


def leaks(train: list[Conversation], *held_out: Conversation) -> list[Leak | None]:
    """For each training row how it is contaminated."""
    found = {each.row: each.leak for each in contaminated_rows(train, {"held-out": held_out})}
    return [found.get(row) for row in range(len(train))]


CLEAN = [talk(sentence(seed), sentence(seed + 500)) for seed in range(100, 140)]
ITEM = talk(sentence(1, 20), sentence(2, 20))


def test_a_row_that_shares_nothing_stays() -> None:
    assert leaks(CLEAN, ITEM) == [None] * len(CLEAN)


def test_the_same_question_is_a_leak_however_it_is_written() -> None:
    question = ITEM.messages[0].content
    assert leaks([*CLEAN, talk(question.upper() + "!", "other")], ITEM)[-1] is Leak.EXACT
    # Too short for any run of words.
    assert leaks([*CLEAN, talk("ping!", "pong")], talk("Ping?", "x"))[-1] is Leak.EXACT


@pytest.mark.parametrize("part", [0, 1])
def test_eight_words_of_question_or_answer_are_a_leak(part: int) -> None:
    words = ITEM.messages[part].content.split()
    eight = f"{sentence(3)} {' '.join(words[5:13])} {sentence(4)}"
    assert leaks([*CLEAN, talk(eight, "x")], ITEM)[-1] is Leak.SHARED_GRAM
    assert leaks([*CLEAN, talk("x", eight)], ITEM)[-1] is Leak.SHARED_GRAM
    seven = f"{sentence(3)} {' '.join(words[5:12])} {sentence(4)}"
    assert leaks([*CLEAN, talk(seven, "x")], ITEM)[-1] is None


def test_a_question_in_other_words_here_and_there_is_a_leak() -> None:
    """No eight words in a row, but more than half of the 3-grams."""
    words = ITEM.messages[0].content.split()
    for place in (6, 13):
        words[place] = "edited"
    pasted = f"{sentence(5)} {' '.join(words)} {sentence(6)}"
    assert leaks([*CLEAN, talk(pasted, "x")], ITEM)[-1] is Leak.CONTAINMENT
    for place in (3, 9, 10, 16):
        words[place] = "edited"
    assert leaks([*CLEAN, talk(" ".join(words), "x")], ITEM)[-1] is None


def test_a_short_question_must_stand_in_the_row_whole() -> None:
    capital = talk("What is the capital of Kyrgyzstan?", "Bishkek")
    asked = "Answer in one word. What is the capital of Kyrgyzstan? Be quick."
    other = "Answer in one word. What is the capital of Uzbekistan? Be quick."
    found = leaks([*CLEAN, talk(asked, "x"), talk(other, "x")], capital)
    assert found[-2:] == [Leak.CONTAINMENT, None]


def test_words_do_not_join_over_the_end_of_a_message() -> None:
    words = ITEM.messages[0].content.split()
    split = talk(f"{sentence(7)} {' '.join(words[:4])}", f"{' '.join(words[4:8])} {sentence(8)}")
    assert leaks([*CLEAN, split], ITEM)[-1] is None


def test_system_messages_are_no_leak() -> None:
    prompts = [sentence(seed, 40) for seed in range(900, 910)]
    train = [talk(sentence(seed), "x", system=prompts[seed % 10]) for seed in range(200)]
    assert leaks(train, talk(sentence(999), "y", system=prompts[0])) == [None] * 200


def test_what_all_rows_share_is_the_task_and_no_leak() -> None:
    """A worked example before each question, long instructions in it, a frame for the answer."""
    task, shown, frame = sentence(10, 60), sentence(11, 30), sentence(12, 12)

    def templated(seed: int) -> Conversation:
        return talk(
            shown, f"{frame} {sentence(13, 3)}", f"{task} {sentence(seed, 6)}", f"{frame} {seed}"
        )

    train = [templated(seed) for seed in range(1000, 1300)]
    held_out = [templated(seed) for seed in range(2000, 2030)]
    assert contaminated_rows(train, {"held-out": held_out}) == []
    leaked = talk(f"Something else: {sentence(2005, 6)}", "x")
    assert leaks([*train, leaked], *held_out)[-1] is Leak.CONTAINMENT


def test_a_phrase_that_many_training_rows_have_is_boilerplate() -> None:
    phrase = sentence(14, 8)
    rows = [talk(f"{sentence(seed)} {phrase}", "x") for seed in range(BOILERPLATE_ROWS + 1)]
    item = talk(f"{sentence(15)} {phrase}", "y")
    assert leaks(rows[:-1], item) == [Leak.SHARED_GRAM] * BOILERPLATE_ROWS
    assert leaks(rows, item) == [None] * len(rows)


def test_every_set_that_is_named_counts_and_each_row_is_told_once() -> None:
    both = talk(f"{ITEM.messages[0].content} {sentence(16)}", "x")
    other = talk(sentence(16), "y")
    found = contaminated_rows([*CLEAN, both], {"held-out": [ITEM], "pvc://data/test": [other]})
    assert found == [Contamination(len(CLEAN), "held-out", Leak.SHARED_GRAM)]
    found = contaminated_rows([*CLEAN, both], {"held-out": [CLEAN[0]], "pvc://data/test": [other]})
    assert by_reason(found) == {
        "held-out": {"Exact": 1},
        "pvc://data/test": {"SharedGram": 1},
    }


def eight_grams(conversation: Conversation) -> set[tuple[str, ...]]:
    return {
        tuple(words[at : at + 8])
        for message in conversation.messages
        for words in (message.content.split(),)
        for at in range(len(words) - 7)
    }


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_row_that_stays_shares_eight_words_with_a_held_out_row(seed: int) -> None:
    """Texts are cut from one long story, so that many overlap; the story is no template."""
    source = random.Random(seed)
    story = text(seed, 2000)

    def passage() -> str:
        start, length = source.randrange(1900), source.randint(1, 30)
        return " ".join(story[start : start + length])

    train = [talk(passage(), passage()) for _ in range(60)]
    held_out = [talk(passage(), passage()) for _ in range(10)]
    gone = {each.row for each in contaminated_rows(train, {"held-out": held_out})}
    sealed = set().union(*map(eight_grams, held_out))
    for number, row in enumerate(train):
        assert number in gone or not eight_grams(row) & sealed
