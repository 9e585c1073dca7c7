"""What works for hours is looked at less often, the more of it there is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tunesmith.kube.pace import LOOKS_A_SECOND, paced

from tests.unit.operator import given

CHOSEN = replace(given.SETTINGS, progress_interval=timedelta(seconds=10))


def test_few_are_looked_at_as_often_as_the_platform_chose() -> None:
    assert paced(CHOSEN, 0) == CHOSEN
    assert paced(CHOSEN, 10 * LOOKS_A_SECOND) == CHOSEN


def test_of_thousands_so_many_are_looked_at_in_a_second_and_no_more() -> None:
    seldom = paced(CHOSEN, 1000)
    assert 1000 / seldom.progress_interval.total_seconds() == LOOKS_A_SECOND
    assert replace(seldom, progress_interval=CHOSEN.progress_interval) == CHOSEN
