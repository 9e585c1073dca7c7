"""Conditions with metav1's semantics, and which of their changes become Events."""

from __future__ import annotations

from datetime import timedelta

from tunesmith.kube.conditions import Finding, fails, holds, unknown, updated
from tunesmith.kube.events import announcements, event_object
from tunesmith.kube.reconcile import without_empty

from tests.unit.operator import given


def test_the_transition_time_only_moves_with_the_status() -> None:
    first = updated([], [unknown("Ready", "A", "")], 1, given.NOW)
    later = given.NOW + timedelta(hours=1)
    same = updated(first, [unknown("Ready", "B", "other words")], 2, later)
    changed = updated(same, [holds("Ready", "C", "")], 2, later)
    assert same[0].last_transition_time == first[0].last_transition_time
    assert (same[0].reason, same[0].observed_generation) == ("B", 2)
    assert changed[0].last_transition_time != first[0].last_transition_time


def reasons(before: list[Finding], after: list[Finding]) -> list[str]:
    told = announcements(updated([], before, 1, given.NOW), updated([], after, 1, given.NOW))
    return [each.reason for each in told]


def test_only_news_is_announced() -> None:
    assert reasons([], [fails("Ready", "NotTrained", "not yet")]) == []
    assert reasons([], [holds("Ready", "Passed", "now")]) == ["Passed"]
    assert reasons([holds("Ready", "Passed", "")], [holds("Ready", "Passed", "again")]) == []
    assert reasons([holds("Stalled", "X", "")], [fails("Stalled", "Progressing", "")]) == []


def test_what_was_true_from_the_beginning_is_a_condition_and_no_event() -> None:
    unusual = holds("Warning", "OutsideProvenRange", "rank 128 is seldom better than 64")
    assert reasons([], [unusual]) == []
    assert reasons([], [holds("Warning", "HotSetDoesNotFit", "")]) == ["HotSetDoesNotFit"]


def test_one_cause_in_two_conditions_is_told_once() -> None:
    after = [fails("Succeeded", "Empty", "no rows"), holds("Stalled", "Empty", "no rows")]
    assert reasons([unknown("Succeeded", "Running", "")], after) == ["Empty"]


def test_an_event_said_again_by_the_same_pass_has_the_same_name() -> None:
    owner = {"apiVersion": "v", "kind": "K", "metadata": given.metadata("x", resourceVersion="7")}
    (told,) = announcements([], updated([], [holds("Ready", "Passed", "now")], 1, given.NOW))
    first = event_object(owner, told, given.NOW)
    again = event_object(owner, told, given.NOW + timedelta(seconds=5))
    assert first["metadata"]["name"] == again["metadata"]["name"]


def test_a_status_that_differs_only_by_empty_members_is_the_same() -> None:
    assert without_empty({"a": [], "b": {"c": {}}, "d": [{"e": []}]}) == {"d": [{}]}
