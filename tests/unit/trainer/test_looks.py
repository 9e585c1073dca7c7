"""When the figures are looked at, and how sure one must be."""

from __future__ import annotations

import pytest
from tunesmith_trainer.evaluate.looks import confidence, schedule


@pytest.mark.parametrize(
    ("first", "available", "extend", "looks"),
    [
        (500, 2300, True, [500, 1000, 2000, 2300]),
        (500, 2000, True, [500, 1000, 2000]),
        (500, 500, True, [500]),
        (500, 80, True, [80]),
        (500, 2300, False, [500]),
        (500, 80, False, [80]),
        (1, 3, True, [1, 2, 3]),
    ],
)
def test_looks_double_until_all_items_are_asked(
    first: int, available: int, extend: bool, looks: list[int]
) -> None:
    assert schedule(first, available, extend) == looks


@pytest.mark.parametrize(("first", "available"), [(0, 5), (5, 0)])
def test_without_items_there_is_no_look(first: int, available: int) -> None:
    with pytest.raises(ValueError, match="without items"):
        schedule(first, available, extend=True)


def test_one_look_is_at_95_percent() -> None:
    assert confidence(1) == 95


@pytest.mark.parametrize("looks", [2, 3, 7])
def test_the_looks_share_the_error(looks: int) -> None:
    assert looks * (100 - confidence(looks)) == pytest.approx(5)


def test_there_is_no_confidence_without_a_look() -> None:
    with pytest.raises(ValueError, match="without a look"):
        confidence(0)
