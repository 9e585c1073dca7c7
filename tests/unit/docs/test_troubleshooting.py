"""The troubleshooting page has an entry for each reason that a condition may have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain

from tunesmith.api.evalrun import EvalState
from tunesmith.api.job_status import JobState
from tunesmith.api.reasons import ConditionReason, NotServedReason, RefusalReason
from tunesmith.api.serving_status import ServingState
from tunesmith.api.trainer_contract import Reason
from tunesmith.finetunejob.preflight import Band

from tests.unit.docs.pages import ROOT, page

REASONS: tuple[type[StrEnum], ...] = (
    *(ConditionReason, NotServedReason, RefusalReason, Reason, Band),
    *(JobState, EvalState, ServingState),
)
#: Where a reason stands among the arguments of what makes conditions, troubles and refusals.
POSITIONS = {
    "holds": 1,
    "fails": 1,
    "unknown": 1,
    "Trouble": 0,
    "Announcement": 1,
    "_say_stalled": 2,
    "_rejected": 1,
}
HEALS = "*Heals by itself:*"


def entries() -> dict[str, str]:
    """The text of each entry by its reason: below a heading of its own, or in a table."""
    text = page("troubleshooting.md").text
    parts = re.split(r"^### (\w+)$", text, flags=re.MULTILINE)
    found = {
        name: body.split("\n## ")[0] for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    for row in re.finditer(r"^\| (`.*?`) \| (.*) \|$", text, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row[1]):
            assert name not in found, f"{name} has two entries"
            found[name] = row[2]
    return found


def test_every_reason_has_an_entry_and_every_entry_is_a_reason() -> None:
    reasons = {str(each) for each in chain.from_iterable(REASONS)}
    assert set(entries()) == reasons


def test_what_asks_something_of_somebody_says_whether_it_heals_by_itself() -> None:
    text = page("troubleshooting.md").text
    headed = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    silent = [name for name in headed if HEALS not in " ".join(entries()[name].split())]
    assert silent == []


def test_no_reason_is_a_word_of_the_moment() -> None:
    """A literal in the place of a reason would be in no list."""
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sorted((ROOT / "operator" / "tunesmith").rglob("*.py"))
        for node in literal_reasons(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


def literal_reasons(tree: ast.Module) -> Iterator[ast.Constant]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        position = POSITIONS.get(name)
        places = [each.value for each in call.keywords if each.arg == "reason"]
        if position is not None and not any(isinstance(each, ast.Starred) for each in call.args):
            places += call.args[position : position + 1]
        for place in places:
            yield from literals(place)


def literals(node: ast.expr) -> Iterator[ast.Constant]:
    match node:
        case ast.Constant(value=str()) if node.value:
            yield node
        case ast.IfExp():
            yield from chain(literals(node.body), literals(node.orelse))


def test_a_literal_in_the_place_of_a_reason_is_noticed() -> None:
    written = 'holds("Ready", x if y else "Fine", "All is well."); Trouble(Reason.INTERNAL, "No.")'
    assert [each.value for each in literal_reasons(ast.parse(written))] == ["Fine"]
