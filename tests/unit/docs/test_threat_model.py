"""Each row of the threat model names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.unit.docs.pages import ROOT, page

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_in(file: Path) -> set[str]:
    """At the top, and in classes."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def rows() -> list[str]:
    """Of the tables of attacks."""
    return re.findall(
        r"^\| (?!asset)[^|\n]+ \| [^|\n]+ \| [^|\n]+ \| .*\|$", page_text(), re.MULTILINE
    )


def page_text() -> str:
    return page("threat-model.md").text


def test_every_attack_has_a_test() -> None:
    assert len(rows()) > 20
    assert [row[:80] for row in rows() if not NAMED.search(row)] == []


def test_every_test_that_is_named_exists() -> None:
    lost = [
        f"{file}::{name}"
        for file, name in NAMED.findall(page_text())
        if not (ROOT / file).is_file() or name not in functions_in(ROOT / file)
    ]
    assert lost == []


def test_what_looks_like_a_test_is_one() -> None:
    """A name that the pattern above passes over would never be looked for."""
    assert len(re.findall(r"tests/\S+::", page_text())) == len(NAMED.findall(page_text()))
