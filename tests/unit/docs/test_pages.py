"""Links lead somewhere, examples are what the API takes, and no page is out of reach."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunesmith.api import GROUP
from tunesmith.api.crd import DEFINITIONS

from tests.unit.docs.pages import ROOT, Page, page, pages

MODELS = {each.model.__name__: each.model for each in DEFINITIONS}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("found", pages(), ids=lambda each: each.name)


def links(found: Page) -> Iterator[str]:
    """The relative ones."""
    for link in LINK.finditer(found.prose):
        if "://" not in link[1]:
            yield link[1]


def target(found: Page, link: str) -> tuple[Path, str]:
    """The file and the anchor that a link leads to."""
    path, _, anchor = link.partition("#")
    return (found.path.parent / path).resolve() if path else found.path, anchor


@every_page
def test_every_link_leads_somewhere(found: Page) -> None:
    lost = [link for link in links(found) if not target(found, link)[0].exists()]
    assert lost == []


@every_page
def test_every_anchor_is_a_heading(found: Page) -> None:
    lost = []
    for link in links(found):
        path, anchor = target(found, link)
        if anchor and path.suffix == ".md" and anchor not in Page(path).anchors():
            lost.append(link)
    assert lost == []


def test_the_map_leads_to_every_page() -> None:
    """At once, or through a page that it leads to."""
    reached, waiting = set[Path](), [page("README.md").path]
    while waiting:
        path = waiting.pop()
        if path not in reached and path.suffix == ".md":
            reached.add(path)
            waiting += [target(Page(path), link)[0] for link in links(Page(path))]
    assert {each.path for each in pages()} <= reached


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Whole objects of ours in the pages and examples, by where they stand."""
    texts = [(each.name, block) for each in pages() for block in each.blocks("yaml")]
    files = sorted((ROOT / "examples").rglob("*.yaml"))
    texts += [(str(each.relative_to(ROOT)), each.read_text(encoding="utf-8")) for each in files]
    for place, text in texts:
        for raw in yaml.safe_load_all(text):
            if isinstance(raw, dict) and str(raw.get("apiVersion", "")).startswith(f"{GROUP}/"):
                yield f"{place}: {raw['kind']} {raw['metadata']['name']}", raw


@pytest.mark.parametrize("raw", [pytest.param(raw, id=place) for place, raw in objects()])
def test_an_object_that_is_shown_is_one_of_the_api(raw: dict[str, Any]) -> None:
    given = {"metadata": {**raw["metadata"], "namespace": "team", "uid": "1"}}
    read = MODELS[raw["kind"]].model_validate({**raw, **given})
    kept = read.model_dump(mode="json", by_alias=True)
    assert list(lost_members(raw["spec"], kept["spec"])) == []


def lost_members(written: Any, kept: Any, path: str = "spec") -> Iterator[str]:
    """Members that the model did not know: misspelt, or of another version."""
    if isinstance(written, dict):
        for name, value in written.items():
            if isinstance(kept, dict) and name in kept:
                yield from lost_members(value, kept[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    if isinstance(written, list) and isinstance(kept, list):
        for number, value in enumerate(written):
            yield from lost_members(value, kept[number], f"{path}[{number}]")


def test_a_misspelt_member_is_noticed() -> None:
    raw = {"baseModel": {"uri": "pvc://a"}, "lora": {"rang": 8}}
    assert list(lost_members(raw, {"baseModel": {"uri": "pvc://a"}, "lora": {"rank": 16}})) == [
        "spec.lora.rang"
    ]
