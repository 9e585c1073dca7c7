"""Counts what was tried and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.bench.results import Figure, tell
from tests.faults.fault import Group
from tests.faults.trial import Outcome

WANTED = 150
#: How many requests there are differs a little with how fast things happen, so the last of them
#: are not always reached. More than these points that are never reached are points that are not
#: tried at all: so many of all, and so many where there are few.
MOST_UNREACHED_SHARE = 0.03
MOST_UNREACHED_OF_FEW = 2


@dataclass
class Tally:
    """Every trial of one run of the suite."""

    name: str
    wanted: int
    outcomes: list[Outcome] = field(default_factory=list)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        self.outcomes += outcomes

    def require_right(self, outcomes: list[Outcome]) -> None:
        """Every fault that struck ended right, and faults did strike."""
        self.add(outcomes)
        broken = [f"{each.name}: {'; '.join(each.broken)}" for each in outcomes if each.broken]
        assert not broken, "\n".join(broken)
        assert any(each.tried for each in outcomes), "no fault struck"

    def tell(self) -> bool:
        tried = [each for each in self.outcomes if each.tried]
        right = [each for each in tried if not each.broken]
        figures = [
            *(
                Figure(f"{group}: right of {_count(tried, group)}", _count(right, group), "points")
                for group in Group
                if _count(tried, group)
            ),
            Figure(
                f"never reached of {len(self.outcomes)}",
                len(self.outcomes) - len(tried),
                "points",
                f"<= {self._most_unreached()}",
            ),
            Figure("fault points tried", len(tried), "points", f">= {self.wanted}"),
            Figure("ended in the right state", len(right), "points", f"== {len(tried)}"),
        ]
        return tell(self.name, figures)

    def _most_unreached(self) -> int:
        return max(MOST_UNREACHED_OF_FEW, int(MOST_UNREACHED_SHARE * len(self.outcomes)))


def _count(outcomes: list[Outcome], group: Group) -> int:
    return sum(each.group is group for each in outcomes)
