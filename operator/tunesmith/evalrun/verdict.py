"""From measured differences to a verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.api.evalrun import EvalRun, GateResult, SuiteResult
from tunesmith.api.evaluation_suite import Gate, OnInconclusive, all_gates
from tunesmith.api.verdict import MOST_FAILED_PERCENT, Verdict, judge

#: The worst gate decides: a failure outweighs a doubt, a doubt outweighs a pass.
SEVERITY = [Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED]


def gates_of(run: EvalRun) -> list[Gate]:
    """What must hold: nothing, where nothing is compared."""
    if run.spec.adapter is None and run.spec.merged_model is None:
        return []
    return all_gates(run.spec.suites, run.spec.gates)


def judge_all(gates: Iterable[Gate], results: Iterable[SuiteResult]) -> list[GateResult]:
    """Every gate's verdict: of a suite that was not measured, that nobody knows."""
    by_suite = {each.suite: each for each in results}
    return [
        GateResult(
            suite=gate.suite,
            minimum_difference=gate.minimum_difference,
            verdict=_judged(gate, by_suite.get(gate.suite)),
        )
        for gate in gates
    ]


def _judged(gate: Gate, result: SuiteResult | None) -> Verdict:
    """What the gate says; a doubt is taken as the gate wants it, unless the judge is to blame."""
    if result is None or result.confidence_interval is None:
        return Verdict.INCONCLUSIVE
    if (result.failed_percent or 0) > MOST_FAILED_PERCENT:
        return Verdict.INCONCLUSIVE
    verdict = judge(gate.minimum_difference, result.confidence_interval)
    match verdict, gate.on_inconclusive:
        case Verdict.INCONCLUSIVE, OnInconclusive.FAIL:
            return Verdict.FAILED
        case Verdict.INCONCLUSIVE, OnInconclusive.PASS:
            return Verdict.PASSED
        case _:
            return verdict


def worst(results: Iterable[GateResult]) -> Verdict:
    return min((each.verdict for each in results), key=SEVERITY.index)
