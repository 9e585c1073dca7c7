"""What is told about one suite, in results.json and on the page: its items and its subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tunesmith.api.evalrun import SuiteResult
from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.sample_size import RATING_RANGE
from tunesmith.api.schema import ApiModel
from tunesmith.api.verdict import ConfidenceInterval

from tunesmith_trainer.evaluate.measured import Answer, Measured, Question, Side
from tunesmith_trainer.evaluate.statistics import POINTS, compare

CONFIDENCE_PERCENT = 95.0
#: One item says nothing about how much items differ.
ITEMS_FOR_AN_INTERVAL = 2


class Subject(ApiModel):
    """Mean scores of both sides on the questions of one subject, in the unit of the suite."""

    name: str
    items: int
    #: The better side of the base model.
    base: float
    adapter: float
    difference: float
    #: At 95% confidence, whatever the suite has. Unset for a single item.
    confidence_interval: ConfidenceInterval | None = None


@dataclass(frozen=True)
class Item:
    """One question with the answers of every side."""

    #: Its line in the file of the items, from 1.
    number: int
    question: Question
    answers: Mapping[Side, Answer]
    #: Adapter minus the better side of the base model. None without an adapter, or unrated.
    difference: float | None


@dataclass(frozen=True)
class SuiteReport:
    """A suite's answers, and what was computed from them."""

    measured: Measured
    result: SuiteResult
    #: What the gates ask of the difference, in points.
    bounds: tuple[float, ...] = ()

    @property
    def sides(self) -> list[Side]:
        """Those that were asked, in the order of the enum."""
        return [side for side in Side if side in self.measured.answers]

    @property
    def items_file(self) -> str:
        return f"items-{self.measured.name}.jsonl"

    @property
    def better_base(self) -> Side:
        """The side of the base model that the adapter is compared with."""
        prompted = self.result.prompted_base
        return Side.PROMPTED_BASE if prompted and prompted > self.result.base else Side.BASE

    @cached_property
    def items(self) -> list[Item]:
        """In the order in which they were asked. Raises ValueError if a side misses answers."""
        columns = [self.measured.answers[side] for side in self.sides]
        rows = [dict(zip(self.sides, row, strict=True)) for row in zip(*columns, strict=True)]
        # Not every question of the suite has to be asked.
        asked = self.measured.questions[: len(rows)]
        return [
            Item(number, question, answers, self._difference(answers))
            for number, (question, answers) in enumerate(zip(asked, rows, strict=True), start=1)
        ]

    @cached_property
    def subjects(self) -> list[Subject]:
        """Those that fell most come first. Empty without an adapter, or with one subject only."""
        counted: dict[str, list[Item]] = {}
        for item in self.items:
            if item.question.group and item.difference is not None:
                counted.setdefault(item.question.group, []).append(item)
        if len(counted) < 2:
            return []
        subjects = [self._subject(name, items) for name, items in counted.items()]
        return sorted(subjects, key=lambda subject: (subject.difference, subject.name))

    def _difference(self, answers: Mapping[Side, Answer]) -> float | None:
        adapter = answers.get(Side.ADAPTER)
        base = answers[self.better_base]
        if adapter is None or adapter.score is None or base.score is None:
            return None
        return float(adapter.score) - float(base.score)

    def _subject(self, name: str, items: Sequence[Item]) -> Subject:
        comparison = compare(
            [float(item.answers[self.better_base].score or 0) for item in items],
            [float(item.answers[Side.ADAPTER].score or 0) for item in items],
            groups=[""] * len(items),
            confidence=CONFIDENCE_PERCENT,
            scale=RATING_RANGE if self.measured.metric is Metric.RATING else POINTS,
        )
        return Subject(
            name=name,
            items=len(items),
            base=comparison.base,
            adapter=comparison.adapter,
            difference=comparison.difference,
            confidence_interval=(
                comparison.interval if len(items) >= ITEMS_FOR_AN_INTERVAL else None
            ),
        )


def most_different_first(items: Sequence[Item]) -> list[Item]:
    """The largest differences, losses before gains; then unrated items; then the equal ones."""

    def place(item: Item) -> tuple[int, float, float]:
        match item.difference:
            case None:
                return 1, 0, 0
            case 0:
                return 2, 0, 0
            case difference:
                return 0, -abs(difference), difference

    return sorted(items, key=place)
