"""The Dockerfiles build, and what they make is what the chart expects."""

from __future__ import annotations

import pytest

from tests.images.conftest import Builder


@pytest.fixture(scope="module")
def operator(builder: Builder) -> str:
    return builder.build("operator/Dockerfile", "operator")


@pytest.fixture(scope="module")
def trainer(builder: Builder) -> str:
    return builder.build("trainer_image/Dockerfile", "trainer")


def test_the_operator_starts_and_says_what_it_lacks(builder: Builder, operator: str) -> None:
    said = builder.execute(operator, "sh", "-c", "python3 -m tunesmith.main 2>&1 || true")
    assert "the environment variable TUNESMITH_TRAINER_IMAGE is not set" in said


def test_the_operators_image_carries_no_torch(builder: Builder, operator: str) -> None:
    script = "from importlib.util import find_spec; print(find_spec('torch'))"
    assert builder.execute(operator, "python3", "-c", script) == "None"


def test_the_operator_is_not_root(builder: Builder, operator: str) -> None:
    assert builder.execute(operator, "id", "-u") == "65532"


def test_the_trainer_has_all_its_libraries(builder: Builder, trainer: str) -> None:
    script = "import torch, trl, peft, lm_eval, tunesmith_trainer.main; print('complete')"
    command = ["env", "HOME=/tmp", "python3", "-c", script]
    assert builder.execute(trainer, *command).endswith("complete")


def test_the_trainer_is_not_root(builder: Builder, trainer: str) -> None:
    assert builder.execute(trainer, "id", "-u") == "65532"
