"""From an interval to a verdict. Pure, and shared: the evaluator asks for more items until it
knows, the operator decides."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.schema import ApiModel

#: A judge that fails more often than this is no judge, whatever its other ratings say.
MOST_FAILED_PERCENT = 5.0


class Verdict(StrEnum):
    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


class ConfidenceInterval(ApiModel):
    """A confidence interval, in points."""

    lower: float = Field(description="Lower end.")
    upper: float = Field(description="Upper end.")


def judge(minimum_difference: float, interval: ConfidenceInterval) -> Verdict:
    """Passed when the whole interval lies above the bound, Failed when none of it does.

    An interval that only touches the bound does not lie above it: equal is not better.
    """
    if interval.lower > minimum_difference:
        return Verdict.PASSED
    if interval.upper <= minimum_difference:
        return Verdict.FAILED
    return Verdict.INCONCLUSIVE
