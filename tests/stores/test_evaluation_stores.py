"""What an evaluation keeps in a bucket: its report, and the base model's answers for the next."""

from __future__ import annotations

import pytest
from tunesmith.api.trainer_contract import PlannedSource
from tunesmith_trainer.evaluate.base_results import BaseResults
from tunesmith_trainer.evaluate.measured import Answer, Question
from tunesmith_trainer.output import open_output
from tunesmith_trainer.sources.bucket import Bucket

DIGEST = "sha256:" + "d" * 64
QUESTIONS = [Question("2+2?", "4"), Question("3+3?", "6")]
ANSWERS = {QUESTIONS[0].key: Answer("4", 1.0), QUESTIONS[1].key: Answer("5", 0.0)}


def base_results(bucket: Bucket) -> BaseResults:
    store = open_output(PlannedSource(uri=f"s3://{bucket.name}/kept", credentials="TEST"))
    return BaseResults(store, DIGEST, "libraries")


def test_the_base_models_answers_are_known_to_the_next_run(bucket: Bucket) -> None:
    assert base_results(bucket).recall(QUESTIONS) == {}
    base_results(bucket).remember(QUESTIONS, ANSWERS)
    assert base_results(bucket).recall(QUESTIONS) == ANSWERS


def test_a_bucket_that_takes_nothing_does_not_stop_the_evaluation(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_AWS_SECRET_ACCESS_KEY", "wrong")
    results = base_results(bucket)
    results.remember(QUESTIONS, ANSWERS)
    assert "base answers are not kept" in caplog.text
    assert results.recall(QUESTIONS) == ANSWERS
