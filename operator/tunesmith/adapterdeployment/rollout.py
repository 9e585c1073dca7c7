"""Which version of an adapter answers under its name, and how a new one takes over. Pure.

What was decided before is read from status: a version is promoted, a canary or rolled back until
something observed changes that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.api.adapter_selection import AdapterSelection, Canary
from tunesmith.api.serving_contract import Traffic
from tunesmith.api.serving_status import MOST_VERSIONS, ServedAdapter, VersionState
from tunesmith.kube.conditions import timestamp

#: A canary is not judged early by fewer requests than these.
LEAST_REQUESTS = 20

#: Versions that replicas hold; a version that was rolled back is only remembered.
LOADED = {
    VersionState.PROMOTED,
    VersionState.CANARY,
    VersionState.JOINING,
    VersionState.STANDBY,
}


@dataclass(frozen=True)
class Version:
    """One version and what it is for now."""

    candidate: Candidate
    state: VersionState
    weight: int
    since: str

    @property
    def loaded(self) -> bool:
        return self.state in LOADED


@dataclass(frozen=True)
class Evidence:
    """What was observed: who is everywhere, and what the proxies counted."""

    ready_everywhere: Callable[[Candidate], bool]
    traffic: Mapping[str, Traffic]
    now: datetime


def versions(
    served: Mapping[str, list[Candidate]],
    rules: AdapterSelection,
    previous: list[ServedAdapter],
    evidence: Evidence,
) -> list[Version]:
    """All versions of all names."""
    pins = {each.name: each.version for each in rules.pins}
    for name, candidates in served.items():
        if pins.get(name) not in {each.version for each in candidates}:
            pins.pop(name, None)
    known: dict[str, dict[str, ServedAdapter]] = {}
    for each in previous:
        known.setdefault(each.name, {})[each.version] = each
    return [
        version
        for name, candidates in served.items()
        for version in _of_one_name(
            candidates, rules, pins.get(name), known.get(name, {}), evidence
        )
    ]


def within_bounds(found: list[Version]) -> list[Version]:
    """As many as a status has room for; those that nobody asks go first."""
    surplus = max(0, len(found) - MOST_VERSIONS)
    spare = [
        each
        for state in (VersionState.STANDBY, VersionState.ROLLED_BACK, VersionState.JOINING)
        for each in found
        if each.state is state
    ]
    left_out = {each.candidate.model for each in spare[:surplus]}
    return [each for each in found if each.candidate.model not in left_out]


def _of_one_name(
    candidates: list[Candidate],
    rules: AdapterSelection,
    pin: str | None,
    known: Mapping[str, ServedAdapter],
    evidence: Evidence,
) -> list[Version]:
    back = {
        each.version
        for each in candidates
        if _was(known, each, VersionState.ROLLED_BACK) and each.version != pin
    }
    promoted = next((one for one in candidates if _was(known, one, VersionState.PROMOTED)), None)
    goal = _goal(candidates, pin, back, evidence, promoted)
    states: dict[str, VersionState] = dict.fromkeys(back, VersionState.ROLLED_BACK)
    if promoted is None or goal is None or goal.version == promoted.version:
        promoted = goal or promoted
    else:
        canary = None if pin else rules.canary
        state = _take_over(promoted, goal, canary, known.get(goal.version), evidence)
        states[goal.version] = state
        if state is VersionState.PROMOTED:
            promoted = goal
    if promoted:
        states[promoted.version] = VersionState.PROMOTED
    spare = [each for each in reversed(candidates) if each.version not in states]
    states |= {each.version: VersionState.STANDBY for each in spare[: rules.keep_versions]}
    share = rules.canary.weight if rules.canary and VersionState.CANARY in states.values() else 0
    weights = {VersionState.PROMOTED: 100 - share, VersionState.CANARY: share}
    return [
        Version(
            each,
            states[each.version],
            weights.get(states[each.version], 0),
            _since(known.get(each.version), states[each.version], evidence.now),
        )
        for each in candidates
        if each.version in states
    ]


def _goal(
    candidates: list[Candidate],
    pin: str | None,
    back: set[str],
    evidence: Evidence,
    promoted: Candidate | None,
) -> Candidate | None:
    """The version that is to answer: the pinned one, or the newest that was not rolled back.

    When the one that answered is gone, one that is there already goes before a newer one that is
    not.
    """
    if pinned := next((each for each in candidates if each.version == pin), None):
        return pinned
    able = [each for each in candidates if each.version not in back]
    there = [each for each in able if evidence.ready_everywhere(each)]
    if promoted is None and there:
        return there[-1]
    return able[-1] if able else None


def _take_over(
    promoted: Candidate,
    goal: Candidate,
    canary: Canary | None,
    known: ServedAdapter | None,
    evidence: Evidence,
) -> VersionState:
    """How far the new version is on its way to being promoted."""
    ready = evidence.ready_everywhere(goal)
    if canary is None:
        return VersionState.PROMOTED if ready else VersionState.JOINING
    if known is None or known.state is not VersionState.CANARY or known.since is None:
        return VersionState.CANARY if ready else VersionState.JOINING
    # A canary that makes its replicas unready is judged all the more.
    stable = evidence.traffic.get(promoted.model, Traffic())
    tried = evidence.traffic.get(goal.model, Traffic())
    worse = _error_percent(tried) > _error_percent(stable) + canary.max_error_percent
    over = evidence.now - datetime.fromisoformat(known.since) >= timedelta(minutes=canary.minutes)
    if worse and (over or tried.requests >= LEAST_REQUESTS):
        return VersionState.ROLLED_BACK
    return VersionState.PROMOTED if over and ready else VersionState.CANARY


def _error_percent(traffic: Traffic) -> float:
    return 100 * traffic.errors / traffic.requests if traffic.requests else 0.0


def _was(known: Mapping[str, ServedAdapter], candidate: Candidate, state: VersionState) -> bool:
    found = known.get(candidate.version)
    return found is not None and found.state is state and found.digest == candidate.digest


def _since(known: ServedAdapter | None, state: VersionState, now: datetime) -> str:
    if known and known.state is state and known.since:
        return known.since
    return timestamp(now)
