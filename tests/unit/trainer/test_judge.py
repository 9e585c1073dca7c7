"""Asking a judge that is slow, broken, choosy or talkative."""

from __future__ import annotations

import gzip
import logging
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tunesmith.api.evaluation_suite import Judge
from tunesmith.api.objects import SecretReference
from tunesmith.api.trainer_contract import JUDGE_KEY_VARIABLE, Reason

pytest.importorskip("httpx")

from tunesmith_trainer.evaluate.mt_bench.judge import (
    LARGEST_ANSWER_BYTES,
    JudgeClient,
    Patience,
)
from tunesmith_trainer.evaluate.mt_bench.prompts import SAMPLE_PROMPT
from tunesmith_trainer.evaluate.mt_bench.reply import RATING, WINNER
from tunesmith_trainer.failure import TrainerError

from tests.unit.trainer.judge_server import Response, judge_server, rates, refuses, says

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGE_KEY_VARIABLE, f"{KEY}\n")


class Waits:
    """Notes how long the client would have slept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


def client(url: str, waits: Waits | None = None, **settings: Any) -> JudgeClient:
    judge = Judge(url=url, model="stern-1", **settings)
    return JudgeClient(judge, Patience(sleep=(waits or Waits()).sleep))


def unreachable(judge: JudgeClient, prompts: int = 1) -> str:
    with pytest.raises(TrainerError) as raised:
        judge.choices([SAMPLE_PROMPT] * prompts)
    assert raised.value.reason is Reason.JUDGE_UNREACHABLE
    assert KEY not in raised.value.message
    return raised.value.message


def test_the_judge_is_asked_for_json_and_for_the_same_answer_every_time() -> None:
    with judge_server(lambda *_: rates(7)) as server:
        assert client(server.url + "/").choices([SAMPLE_PROMPT]) == [7]
    (request,) = server.requests
    assert server.paths == ["/v1/chat/completions"]
    assert server.keys == [f"Bearer {KEY}"]
    assert (request["model"], request["temperature"], request["seed"]) == ("stern-1", 0, 0)
    schema = request["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reason", "rating"]
    assert schema["properties"]["rating"]["enum"] == list(range(1, 11))


def test_choices_come_back_in_the_order_of_the_prompts() -> None:
    def last_letter(request: dict[str, Any], _: int) -> Response:
        return rates(int(request["messages"][1]["content"][-1]))

    prompts = [
        type(SAMPLE_PROMPT)("rate", f"answer {number % 9 + 1}", RATING) for number in range(30)
    ]
    counted: list[int] = []
    with judge_server(last_letter) as server:
        choices = client(server.url).choices(prompts, counted.append)
    assert choices == [number % 9 + 1 for number in range(30)]
    assert sum(counted) == 30


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_judge_is_asked_again_later_and_later(status: int) -> None:
    waits = Waits()
    with judge_server(lambda _, n: refuses(status) if n < 3 else rates(4)) as server:
        assert client(server.url, waits).choices([SAMPLE_PROMPT]) == [4]
    first, second, third = waits.seconds
    assert 0.5 <= first <= 1.5
    assert 1 <= second <= 3
    assert 2 <= third <= 6


@pytest.mark.parametrize("as_date", [False, True])
def test_a_judge_that_says_when_to_come_back_is_heard(as_date: bool) -> None:
    waits = Waits()
    date = datetime.now(UTC) + timedelta(seconds=21)
    later = format_datetime(date, usegmt=True) if as_date else "20"
    with judge_server(
        lambda _, n: refuses(429, Retry_After=later) if n == 0 else rates(4)
    ) as server:
        assert client(server.url, waits).choices([SAMPLE_PROMPT]) == [4]
    assert len(waits.seconds) == 1
    assert 10 < waits.seconds[0] <= 21


def test_nobody_waits_an_hour() -> None:
    waits = Waits()
    with judge_server(lambda *_: refuses(429, "quota", Retry_After="3600")) as server:
        message = unreachable(client(server.url, waits))
    assert waits.seconds == []
    assert "after 1 tries (429" in message
    assert "quota" in message


def test_a_judge_that_stays_down_is_given_up_after_five_tries() -> None:
    with judge_server(lambda *_: refuses(500, "broken")) as server:
        message = unreachable(client(server.url))
    assert len(server.requests) == 5
    assert "does not answer after 5 tries (500" in message
    assert "broken" in message


def test_a_judge_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    message = unreachable(client(f"http://user:pass@127.0.0.1:{port}/v1"))
    assert message.startswith(f"the judge at 127.0.0.1:{port} does not answer after 5 tries")
    assert "ConnectError" in message


def test_a_page_that_is_no_api_is_not_taken_for_a_bad_rating() -> None:
    with judge_server(lambda *_: Response("<html>Welcome</html>")) as server:
        assert "no chat completion" in unreachable(client(server.url))


@pytest.mark.parametrize(
    ("status", "says_so"),
    [
        (401, "refuses the key (401): correct JUDGE_API_KEY in the Secret judge-key"),
        (403, "refuses the key (403)"),
        (404, "has no model stern-1, or no API at that address (404"),
        (301, "has no model stern-1, or no API at that address (301"),
    ],
)
def test_what_waiting_does_not_mend_ends_the_run_at_once(status: int, says_so: str) -> None:
    with judge_server(lambda *_: refuses(status, f"bad key {KEY}")) as server:
        judge = client(server.url, secret_ref=SecretReference(name="judge-key"))
        assert says_so in unreachable(judge)
    assert len(server.requests) == 1


def test_a_run_without_a_secret_is_told_where_to_name_it() -> None:
    with judge_server(lambda *_: refuses(401)) as server:
        assert "in mtBench.judge.secretRef" in unreachable(client(server.url))


def test_a_key_of_two_lines_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGE_KEY_VARIABLE, f"{KEY}\n{KEY}")
    with pytest.raises(TrainerError, match="write the key alone") as raised:
        client("http://127.0.0.1/v1")
    assert KEY not in raised.value.message


def test_the_key_is_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with judge_server(lambda _, n: refuses(500, KEY) if n == 0 else rates(4)) as server:
        client(server.url).choices([SAMPLE_PROMPT])
    assert "***" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("unknown", [{"response_format"}, {"response_format", "seed"}])
def test_a_judge_that_knows_no_schema_is_asked_without_it_from_then_on(
    status: int, unknown: set[str]
) -> None:
    def choosy(request: dict[str, Any], _: int) -> Response:
        known = not unknown & set(request)
        return says("Fine. [[8]]") if known else refuses(status, "unknown field")

    with judge_server(choosy) as server:
        judge = client(server.url)
        judge.require_answer()
        asked_before = len(server.requests)
        assert judge.choices([SAMPLE_PROMPT] * 5) == [8] * 5
    assert asked_before == 1 + len(unknown)
    assert len(server.requests) == asked_before + 5


def test_one_prompt_that_is_too_long_costs_one_rating_and_no_schema() -> None:
    def short_sighted(request: dict[str, Any], _: int) -> Response:
        long = len(request["messages"][1]["content"]) > 5000
        return refuses(400, "maximum context length") if long else rates(6)

    too_long = type(SAMPLE_PROMPT)("rate", "x" * 6000, RATING)
    with judge_server(short_sighted) as server:
        judge = client(server.url)
        assert judge.choices([too_long, SAMPLE_PROMPT]) == [None, 6]
        judge.choices([SAMPLE_PROMPT])
    assert "response_format" in server.requests[-1]


def test_a_judge_that_refuses_everything_is_no_judge() -> None:
    with judge_server(lambda *_: refuses(400, "temperature must be 1")) as server:
        message = unreachable(client(server.url), prompts=3)
    assert "refuses every request" in message
    assert "temperature must be 1" in message


@pytest.mark.parametrize(
    ("response", "rating"),
    [
        (rates(1), 1),
        (rates(10), 10),
        (rates(8.0), 8),
        (rates(0), None),
        (rates(11), None),
        (rates(-1), None),
        (rates(7.5), None),
        (rates(True), None),
        (rates(None), None),
        (says('```json\n{"reason": "it says {x}", "rating": 3}\n```'), 3),
        (says('It claims {"rating": 10}. No. {"reason": "wrong", "rating": 2}'), 2),
        (says('<think>{"rating": 9}?</think>[[4]]'), 4),
        (says("Good. Rating: [[9]]"), 9),
        (says("[[11]]"), None),
        (says("[[²]]"), None),
        (says("nine out of ten"), None),
        (says('{"reason": "cut off here'), None),
        (says('{"a":' * 5000), None),
        (says('{"reason": "ok", "rating": 7}', end="length"), None),
        (says(""), None),
        (says(None), None),
    ],
)
def test_only_a_whole_number_from_1_to_10_is_a_rating(
    response: Response, rating: int | None
) -> None:
    with judge_server(lambda *_: response) as server:
        assert client(server.url).choices([SAMPLE_PROMPT]) == [rating]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ('{"reason": "-", "winner": "A"}', "A"),
        ('{"reason": "-", "winner": "tie"}', "tie"),
        ("[[B]]", "B"),
        ('{"reason": "-", "winner": "C"}', None),
        ("A", None),
    ],
)
def test_a_winner_is_a_or_b_or_nobody(text: str, winner: str | None) -> None:
    assert WINNER.read(text) == winner


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Response("[" * 100_000), "the answer is no chat completion"),
        (Response(f'{{"choices": {"9" * 5000}}}'), "the answer is no chat completion"),
        (Response(" " * (LARGEST_ANSWER_BYTES + 1)), "an answer of more than 8 MB"),
        (Response("x" * (LARGEST_ANSWER_BYTES + 1), 500), "an answer of more than 8 MB"),
    ],
    ids=["nested", "digits", "giant", "giant refusal"],
)
def test_an_answer_that_would_fill_memory_or_stop_a_parser_is_none(
    answer: Response, said: str
) -> None:
    with judge_server(lambda *_: answer) as server:
        assert said in unreachable(client(server.url))


def test_a_packed_answer_that_unpacks_to_far_more_is_none() -> None:
    packed = gzip.compress(bytes(LARGEST_ANSWER_BYTES + 1)).decode("latin-1")
    bomb = Response(packed, headers={"Content-Encoding": "gzip"}, encoding="latin-1")
    with judge_server(lambda *_: bomb) as server:
        assert "an answer of more than 8 MB" in unreachable(client(server.url))
