"""What the sidecar makes of vLLM's answers, whatever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith.sidecar.vllm import Vllm, VllmRefusedError, said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"error": {"message": "no such rank"}}', "no such rank"),
        ('{"message": "no such rank", "code": 400}', "no such rank"),
        ('{"error": "no such rank"}', '{"error": "no such rank"}'),
        ('{"detail": "Not Found"}', '{"detail": "Not Found"}'),
        ("[1]", "[1]"),
        ("null", "null"),
        ("Internal Server Error", "Internal Server Error"),
        ("x" * 5000, "x" * 1000),
        (json.dumps({"message": "x" * 5000}), "x" * 1000),
    ],
)
def test_the_sentence_of_an_error_is_found(text: str, sentence: str) -> None:
    assert said(text) == sentence


class Parrot(Vllm):
    """Answers every question with the same words."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def _post(self, *_: object) -> Any:
        return self.answer


def completion(*top_tokens: object) -> dict[str, Any]:
    return {"choices": [{"text": "", "logprobs": {"top_logprobs": list(top_tokens)}}]}


async def test_the_first_tokens_log_probabilities_are_read() -> None:
    answer = completion({" a": -0.5, " b": -3})
    assert await Parrot(answer).first_token("m", "The") == {" a": -0.5, " b": -3.0}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [{"text": "", "logprobs": None}]},
        completion(),
        completion({}),
        completion({" a": float("nan")}),
        completion({" a": -0.5, " b": float("-inf")}),
        completion({" a": None}),
        completion({" a": "high"}),
    ],
)
async def test_an_answer_without_finite_numbers_is_no_proof(answer: Any) -> None:
    with pytest.raises(VllmRefusedError):
        await Parrot(answer).first_token("m", "The")
