"""Rows that say nearly the same: all are found, and nothing else is dropped."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_trainer.data.formats import Conversation, Message, Role

pytest.importorskip("rensa")

from tunesmith_trainer.data.near_duplicates import (
    TEMPLATE_ROWS,
    jaccard,
    near_duplicate_rows,
    near_duplicates,
)
from tunesmith_trainer.data.word_grams import WordHashes, grams, hashed_words, words

SIMILARITY = 0.8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def row(question: str, answer: str, system: str | None = None) -> Conversation:
    messages = (Message(Role.USER, question), Message(Role.ASSISTANT, answer))
    return Conversation((Message(Role.SYSTEM, system), *messages) if system else messages)


def text(source: random.Random, count: int) -> list[str]:
    return ["".join(source.choices(LETTERS, k=6)) for _ in range(count)]


def edited(words_: list[str], source: random.Random, share: float) -> list[str]:
    return ["edited" if source.random() < share else word for word in words_]


def dropped(texts: list[str], similarity: float = SIMILARITY) -> list[int]:
    return near_duplicates(grams(hashed_words(texts, WordHashes()), 3), similarity)


def shingles(of: str) -> frozenset[bytes]:
    found = words(of)
    return frozenset(b" ".join(found[at : at + 3]) for at in range(max(1, len(found) - 2)))


def followers(texts: list[str], similarity: float) -> list[int]:
    """The truth, the slow way: every pair is compared."""
    sets = [shingles(each) for each in texts]
    lowest = list(range(len(texts)))
    for one in range(len(texts)):
        for other in range(one):
            if jaccard(sets[one], sets[other]) >= similarity:
                low, high = sorted((lowest[one], lowest[other]))
                lowest = [low if each == high else each for each in lowest]
    return [number for number, low in enumerate(lowest) if number != low]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), similarity=st.sampled_from([0.6, 0.8, 0.95]))
def test_what_is_dropped_is_what_comparing_every_pair_would_drop(
    seed: int, similarity: float
) -> None:
    """Planted copies with up to a tenth of their words changed, in groups of up to four."""
    source = random.Random(seed)
    texts = []
    for _ in range(15):
        original = text(source, source.randint(1, 80))
        texts += [
            " ".join(edited(original, source, source.uniform(0, 0.1)))
            for _ in range(source.randint(1, 4))
        ]
    expected = followers(texts, similarity)
    found = dropped(texts, similarity)
    # Never too many; one in 300 pairs at the very bar may be missed by design.
    assert set(found) <= set(expected)
    assert len(expected) - len(found) <= 1


def test_of_a_hundred_pairs_at_the_bar_at_least_97_are_found() -> None:
    source = random.Random(3)
    texts = []
    for _ in range(100):
        original = text(source, 182)
        # 20 of 180 shingles differ: 160 of 200 are shared.
        changed = list(original)
        for place in (20, 40, 60, 80, 100, 120):
            changed[place] = "edited"
        changed[-2] = "edited"
        texts += [" ".join(original), " ".join(changed)]
    assert jaccard(shingles(texts[0]), shingles(texts[1])) == pytest.approx(SIMILARITY)
    assert len(dropped(texts)) >= 97


def test_case_punctuation_and_width_make_no_difference() -> None:
    plain = "Reset the router, wait for a minute and then call us again"
    assert dropped([plain, plain.upper().replace(",", " --")]) == [1]
    assert dropped(["\uff21\uff22\uff23 ist größer als xyz", "abc IST größer, als XYZ!"]) == [1]


def test_chinese_is_compared_by_characters() -> None:
    sentence = "请在重新启动路由器之后等待一分钟然后再次联系我们的客户服务部门谢谢"
    assert dropped([sentence, sentence[:-1] + "了"]) == [1]
    assert dropped([sentence, sentence[::-1]]) == []


def test_rows_without_words_are_compared_as_they_are() -> None:
    assert dropped(["?!", "!?", "?! "]) == [2]


def test_the_first_of_a_chain_stays() -> None:
    """One is near two and two is near three: they are a group, even if one is far from three."""
    base = text(random.Random(1), 100)
    four, eight = text(random.Random(2), 4), text(random.Random(4), 8)
    steps = [base, [*base[4:], *four], [*base[12:], *four, *eight]]
    chain = [" ".join(each) for each in steps]
    assert jaccard(shingles(chain[0]), shingles(chain[2])) < SIMILARITY
    assert dropped(chain) == [1, 2]


def test_rows_that_share_a_template_are_kept() -> None:
    """Long instructions, one short slot, few different answers: every row is a new example."""
    instructions = " ".join(text(random.Random(5), 300))
    names = text(random.Random(6), 200)
    rows = [row(f"{instructions}\n{name}", "positive", instructions[::-1]) for name in names]
    assert jaccard(shingles(rows[0].messages[1].content), shingles(rows[1].messages[1].content)) > (
        SIMILARITY
    )
    assert near_duplicate_rows(rows, SIMILARITY) == []


def test_the_same_passage_with_another_question_is_another_example() -> None:
    passage = " ".join(text(random.Random(7), 200))
    rows = [row(f"{passage} Who?", "Ada Lovelace"), row(f"{passage} Where?", "In London")]
    assert near_duplicate_rows(rows, SIMILARITY) == []


def test_the_same_question_and_answer_on_another_passage_is_another_example() -> None:
    passages = [" ".join(text(random.Random(seed), 100)) for seed in (8, 9)]
    rows = [row("Is this good?", "Yes", passage) for passage in passages]
    assert near_duplicate_rows(rows, SIMILARITY) == []


@pytest.mark.parametrize("copies", [2, TEMPLATE_ROWS])
def test_copies_with_a_word_changed_are_dropped_but_one(copies: int) -> None:
    original = text(random.Random(10), 150)
    others = [row(" ".join(text(random.Random(seed), 40)), "no") for seed in range(100, 140)]
    rows = [
        row(" ".join([*original[:at], "edited", *original[at + 1 :]]), "yes")
        for at in range(0, 5 * copies, 5)
    ]
    ordered = sorted(rows + others, key=Conversation.digest)
    kept = set(range(len(ordered))) - set(near_duplicate_rows(ordered, SIMILARITY))
    assert [each for each in (ordered[number] for number in sorted(kept)) if each in rows] == [
        min(rows, key=Conversation.digest)
    ]
    assert set(others) <= {ordered[number] for number in kept}


def test_a_thousand_copies_of_one_text_are_one_group() -> None:
    """More than the window within which the members of a bucket are compared."""
    original = text(random.Random(11), 150)
    copies = [
        " ".join([*original[: at % 150], f"edit{at}", *original[at % 150 + 1 :]])
        for at in range(1000)
    ]
    assert dropped(copies) == list(range(1, 1000))


def numbers(of: Iterable[str]) -> list[int]:
    return list(hashed_words(of, WordHashes()).values.tolist())


def test_the_hash_of_a_word_does_not_depend_on_what_was_read_before() -> None:
    assert numbers(["a b c"])[2] == numbers(["c"])[0]
