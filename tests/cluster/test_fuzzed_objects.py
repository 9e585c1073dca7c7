"""A few hundred objects drawn from the schema, and some that no schema has seen, beside a healthy
tenant. `make test-fuzz` is the same with thousands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.test_simulated_gpus import devcluster
from tests.fuzz.campaign import Size, run


@pytest.fixture
def gpus() -> Iterator[None]:
    devcluster("kwok-up", "--nodes", "1")
    yield
    devcluster("kwok-down")


def test_no_object_stops_the_operator_or_keeps_another_tenant_waiting(gpus: None) -> None:
    # Three times as many requests: the pauses here are 3 s, not the chart's 10.
    size = Size(
        objects=300,
        wave=300,
        poison=40,
        policies=8,
        quiet_seconds=10,
        most_requests_a_minute=90,
    )
    figures = run(size)
    assert [f"{each.name}: {each.value:g}" for each in figures if not each.holds] == []
