"""Nobody asks for a metric that nobody tells, and the documentation lists those there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from examples.demo.chain import ROOT
from tests.unit.monitoring import names
from tests.unit.monitoring.chart import alerts, queries

PAGE = ROOT / "docs" / "observability.md"


def told() -> set[str]:
    ours = (*names.of_operator(), *names.of_trainer(), *names.of_sidecar())
    return {each.name for each in ours} | names.of_vllm()


@pytest.mark.parametrize("query", [each.expression for each in alerts()] + queries())
def test_each_query_of_alerts_and_dashboard_asks_for_what_somebody_tells(query: str) -> None:
    asked = names.used(query)
    assert asked
    assert asked <= told()


@pytest.mark.parametrize("tell", [names.of_operator, names.of_trainer, names.of_sidecar])
def test_the_page_has_a_row_for_each_metric(
    tell: Callable[[], list[names.Told]],
) -> None:
    rows = [each.row() for each in tell()]
    text = "\n".join(rows)
    assert text in PAGE.read_text(), f"docs/observability.md should have this table:\n{text}"


def test_the_page_says_what_to_do_about_each_alert() -> None:
    text = PAGE.read_text()
    assert [each.name for each in alerts() if f"\n### {each.name}\n" not in text] == []
