"""MT-Bench: its questions, the conversations, and what the judge's words add up to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.evaluation_suite import Judge, Metric, MtBench
from tunesmith.api.trainer_contract import Reason

pytest.importorskip("httpx")

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.evaluate.measured import Measured, Side
from tunesmith_trainer.evaluate.mt_bench.conversation import Exchange
from tunesmith_trainer.evaluate.mt_bench.prompts import preference_prompt, rating_prompt
from tunesmith_trainer.evaluate.mt_bench.questions import TwoTurnQuestion, read_questions
from tunesmith_trainer.evaluate.mt_bench.suite import read_mt_bench
from tunesmith_trainer.failure import TrainerError

from tests.unit.trainer.judge_server import JudgeServer, Response, judge_server, rates, says

BOTH = (Side.BASE, Side.ADAPTER)
QUESTION = {"question_id": 81, "category": "writing", "turns": ["Write a haiku", "Now in French"]}


class Words:
    """A tokenizer of words, with a template that shows who said what."""

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "".join(f"{each['role']}: {each['content']}\n" for each in messages)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [0] * len(text.split())}


CHAT = ChatFormat(Words(), frozenset())  # type: ignore[arg-type,unused-ignore]


def questions_file(folder: Path, count: int = 2) -> Path:
    path = folder / "questions.jsonl"
    rows = [
        QUESTION | {"question_id": number, "turns": [f"ask {number}", f"more {number}"]}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(side: Side, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Each side answers by its name, and the second time says so."""
    return [f"{side} again" if "assistant:" in prompt else f"{side}" for prompt in prompts]


def measure(
    path: Path,
    script: Callable[[dict[str, Any], int], Response],
    sides: Sequence[Side] = BOTH,
    *,
    pairwise: bool = False,
) -> tuple[Measured, JudgeServer]:
    with judge_server(script) as server:
        settings = MtBench(
            questions="pvc://data/questions.jsonl",
            judge=Judge(url=server.url, model="stern-1"),
            pairwise=pairwise,
        )
        suite = read_mt_bench("chat", settings, path, max_new_tokens=16)
        measured = suite.measure(sides, ask, CHAT, context=2048)
        assert len(server.requests) == suite.judgements_wanted(sides)
    return measured, server


def shown(request: dict[str, Any]) -> str:
    return str(request["messages"][1]["content"])


def wants_rating(request: dict[str, Any]) -> bool:
    return bool(request["response_format"]["json_schema"]["name"] == "rating")


# The file


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"question_id": None}, '"question_id" must be a number or text'),
        ({"question_id": True}, '"question_id" must be a number or text'),
        ({"question_id": 81}, "question_id 81 is in the file twice"),
        ({"category": 7}, '"category" is int'),
        ({"turns": ["one"]}, '"turns" must be a list of two texts'),
        ({"turns": ["one", " "]}, '"turns" must be a list of two texts'),
        ({"turns": "one"}, '"turns" must be a list of two texts'),
        ({"reference": ["one"]}, '"reference" must be a list of two texts'),
    ],
)
def test_a_malformed_question_is_named_with_its_line(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    path = tmp_path / "questions.jsonl"
    row = QUESTION | {"question_id": 82} | change
    path.write_text(f"{json.dumps(QUESTION)}\n{json.dumps(row)}\n")
    with pytest.raises(TrainerError) as raised:
        read_questions(path, "pvc://data/questions.jsonl")
    assert raised.value.reason is Reason.DATASET_MALFORMED
    assert raised.value.message.startswith("questions.jsonl line 2: ")
    assert complaint in raised.value.message


@pytest.mark.parametrize("reference", [None, [], ["4", "8"]])
def test_a_reference_may_be_left_out(tmp_path: Path, reference: object) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [QUESTION | {"question_id": number, "reference": reference} for number in ("a", 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_questions(path, "pvc://data/questions.jsonl")
    assert (first.identifier, second.identifier) == ("a", "2")
    assert first.reference == (("4", "8") if reference else None)


@pytest.mark.parametrize(
    ("count", "reason"), [(0, Reason.DATASET_EMPTY), (1, Reason.DATASET_TOO_SMALL)]
)
def test_fewer_than_two_questions_are_refused(tmp_path: Path, count: int, reason: Reason) -> None:
    with pytest.raises(TrainerError) as raised:
        read_questions(questions_file(tmp_path, count), "pvc://data/questions.jsonl")
    assert raised.value.reason is reason


# What is asked


def test_the_second_turn_follows_the_sides_own_first_answer(tmp_path: Path) -> None:
    prompts: dict[Side, list[str]] = {side: [] for side in BOTH}

    def noting(side: Side, asked: Sequence[str], max_new_tokens: int) -> list[str]:
        assert max_new_tokens == 16
        prompts[side] += asked
        return ask(side, asked, max_new_tokens)

    with judge_server(lambda *_: rates(5)) as server:
        settings = MtBench(
            questions="configmap://mt/q", judge=Judge(url=server.url, model="m"), pairwise=False
        )
        suite = read_mt_bench("chat", settings, questions_file(tmp_path), 16)
        measured = suite.measure(BOTH, noting, CHAT, context=4096)
    assert prompts[Side.ADAPTER] == [
        "user: ask 0\n",
        "user: ask 1\n",
        "user: ask 0\nassistant: adapter\nuser: more 0\n",
        "user: ask 1\nassistant: adapter\nuser: more 1\n",
    ]
    assert prompts[Side.BASE][2] == "user: ask 0\nassistant: base\nuser: more 0\n"
    assert measured.answers[Side.BASE][0].text == "[1] base\n\n[2] base again"
    assert [question.prompt for question in measured.questions] == prompts[Side.BASE][:2]


def test_a_conversation_that_may_not_fit_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    settings = MtBench(questions="pvc://data/q", judge=Judge(url="http://127.0.0.1/v1", model="m"))
    suite = read_mt_bench("chat", settings, questions_file(tmp_path), max_new_tokens=16)
    with pytest.raises(TrainerError, match=r"suite chat: .* may need 39 tokens") as raised:
        suite.measure(BOTH, lambda *_: pytest.fail("asked"), CHAT, context=38)
    assert raised.value.reason is Reason.EXAMPLES_TOO_LONG


def test_the_judge_knows_the_solution_only_where_there_is_one() -> None:
    exchange = Exchange("first answer", "second answer")
    for category, told in (("math", True), ("coding", True), ("writing", False)):
        question = TwoTurnQuestion("1", category, ("2+2?", "And doubled?"), ("four", "eight"))
        first, second = (rating_prompt(question, exchange, turn).user for turn in (0, 1))
        assert ("four" in first, "four" in second, "eight" in second) == (told, told, told)
        assert "eight" not in first
        assert ("eight" in preference_prompt(question, exchange, exchange).user) is told


def test_the_first_turn_is_rated_without_a_look_at_the_second() -> None:
    question = TwoTurnQuestion("1", "writing", ("2+2?", "And doubled?"))
    prompt = rating_prompt(question, Exchange("first answer", "second answer"), 0)
    assert "first answer" in prompt.user
    assert "doubled" not in prompt.user
    assert "second answer" not in prompt.user


def test_both_sides_come_before_the_judge_in_one_mixed_order(tmp_path: Path) -> None:
    _, server = measure(questions_file(tmp_path, 20), lambda *_: rates(5))
    adapter = ["adapter" in shown(request) for request in server.requests]
    assert sum(adapter) == 40
    assert 10 < sum(adapter[:40]) < 30


# What it is worth


def test_the_score_of_a_question_is_the_mean_of_its_two_turns(tmp_path: Path) -> None:
    def kind_to_the_second(request: dict[str, Any], _: int) -> Response:
        bonus = 2 if "adapter" in shown(request) else 0
        return rates((8 if "again" in shown(request) else 5) + bonus)

    measured, _ = measure(questions_file(tmp_path), kind_to_the_second)
    assert measured.metric is Metric.RATING
    assert [answer.score for answer in measured.answers[Side.BASE]] == [6.5, 6.5]
    assert [answer.score for answer in measured.answers[Side.ADAPTER]] == [8.5, 8.5]
    assert (measured.failed_percent, measured.win_percent) == (0, None)


def test_a_question_with_a_failed_rating_counts_for_neither_side(tmp_path: Path) -> None:
    def silent_once(request: dict[str, Any], _: int) -> Response:
        asked = shown(request)
        return says("hm") if "ask 1" in asked and "adapter again" in asked else rates(5)

    measured, _ = measure(questions_file(tmp_path, 3), silent_once)
    for side in BOTH:
        assert [answer.score for answer in measured.answers[side]] == [5, None, 5]


@pytest.mark.parametrize("garbage", [4, 6])
def test_the_share_of_failed_ratings_is_told(tmp_path: Path, garbage: int) -> None:
    measured, server = measure(
        questions_file(tmp_path, 25), lambda _, n: says("[[99]]") if n < garbage else rates(5)
    )
    assert len(server.requests) == 100
    assert measured.failed_percent == pytest.approx(garbage)


def test_a_base_model_alone_is_rated_and_compared_with_nobody(tmp_path: Path) -> None:
    measured, server = measure(
        questions_file(tmp_path), lambda *_: rates(6), (Side.BASE,), pairwise=True
    )
    assert len(server.requests) == 4
    assert list(measured.answers) == [Side.BASE]
    assert measured.win_percent is None


def preferring(preference: Callable[[str, bool], str | None]) -> Callable[..., Response]:
    """A judge that rates all alike; ``preference`` sees the pair and whether the adapter is A."""

    def script(request: dict[str, Any], _: int) -> Response:
        if wants_rating(request):
            return rates(5)
        pair = shown(request)
        adapter_first = pair.index("adapter") < pair.index("base")
        winner = preference(pair, adapter_first)
        return says(json.dumps({"reason": "-", "winner": winner}))

    return script


@pytest.mark.parametrize(
    ("preference", "win_percent"),
    [
        (lambda _, adapter_first: "A" if adapter_first else "B", 100),
        (lambda _, adapter_first: "B" if adapter_first else "A", 0),
        (lambda *_: "A", 50),
        (lambda *_: "tie", 50),
        (lambda _, adapter_first: "A" if adapter_first else "tie", 50),
        (lambda *_: "both", None),
        # One pair of four is won, one cannot be judged, two are ties.
        (
            lambda pair, adapter_first: (
                ("A" if adapter_first else "B")
                if "ask 0" in pair
                else ("tie" if adapter_first or "ask 1" not in pair else None)
            ),
            pytest.approx(100 * 2 / 3),
        ),
    ],
)
def test_a_pair_is_won_only_in_both_orders(
    tmp_path: Path, preference: Callable[[str, bool], str | None], win_percent: object
) -> None:
    measured, _ = measure(questions_file(tmp_path, 4), preferring(preference), pairwise=True)
    assert measured.win_percent == win_percent
    assert measured.failed_percent == 0


def test_the_verdict_names_the_judge_and_what_it_is_told(tmp_path: Path) -> None:
    measured, server = measure(questions_file(tmp_path), lambda *_: rates(5))
    other, _ = measure(questions_file(tmp_path, 3), lambda *_: rates(5))
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert measured.asked.judge is not None
    assert measured.asked.judge.startswith(f"stern-1 at {host} (prompts ")
    assert measured.asked.data != other.asked.data
    assert measured.asked.prompts != other.asked.prompts
