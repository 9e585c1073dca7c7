"""What works for hours is looked at less often, the more of it there is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tunesmith.kube.pace import LOOKS_A_SECOND, paced

from tests.unit.operator import given

CHOSEN = replace(given.SETTINGS, progress_interval=timedelta(seconds=10))


def test_few_are_looked_at_as_often_as_the_platform_chose() -> None:
    assert paced(CHOSEN, {}, "team") == CHOSEN
    assert paced(CHOSEN, {"team": 10 * LOOKS_A_SECOND}, "team") == CHOSEN


def test_of_thousands_so_many_are_looked_at_in_a_second_and_no_more() -> None:
    seldom = paced(CHOSEN, {"team": 1000}, "team")
    assert 1000 / seldom.progress_interval.total_seconds() == LOOKS_A_SECOND
    assert replace(seldom, progress_interval=CHOSEN.progress_interval) == CHOSEN


def test_a_tenant_with_thousands_slows_the_looks_at_its_own_and_not_at_a_neighbours() -> None:
    under_way = {"large": 5000, "small": 10}
    assert paced(CHOSEN, under_way, "small") == CHOSEN
    large = paced(CHOSEN, under_way, "large").progress_interval
    looks = 5000 / large.total_seconds() + 10 / CHOSEN.progress_interval.total_seconds()
    assert looks == pytest.approx(LOOKS_A_SECOND), "what the small one does not need is not lost"


def test_of_many_small_tenants_no_more_are_looked_at_in_a_second() -> None:
    under_way = {f"team-{number}": 5 for number in range(200)}
    each = paced(CHOSEN, under_way, "team-0").progress_interval.total_seconds()
    assert sum(under_way.values()) / each == LOOKS_A_SECOND
