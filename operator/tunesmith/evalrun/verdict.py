"""From measured differences to a verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.api.evalrun import Gate, GateResult, SuiteResult, Verdict

#: The worst gate decides: a failure outweighs a doubt, a doubt outweighs a pass.
SEVERITY = [Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED]


def judge(gate: Gate, result: SuiteResult) -> Verdict:
    """Passed when the whole interval lies above the bound, Failed when none of it does.

    An interval that only touches the bound does not lie above it: equal is not better.
    """
    interval = result.confidence_interval
    if interval.lower > gate.minimum_difference:
        return Verdict.PASSED
    if interval.upper <= gate.minimum_difference:
        return Verdict.FAILED
    return Verdict.INCONCLUSIVE


def judge_all(gates: Iterable[Gate], results: Iterable[SuiteResult]) -> list[GateResult]:
    """Every gate's verdict. Raises KeyError when a gate names a suite that was not measured."""
    by_suite = {each.suite: each for each in results}
    return [
        GateResult(
            suite=gate.suite,
            minimum_difference=gate.minimum_difference,
            verdict=judge(gate, by_suite[gate.suite]),
        )
        for gate in gates
    ]


def worst(results: Iterable[GateResult]) -> Verdict:
    return min((each.verdict for each in results), key=SEVERITY.index)
