"""The document and the test say the same."""

from __future__ import annotations

import re
from pathlib import Path

from tests.model import invariants, world

DOCUMENT = Path(__file__).parents[2] / "docs" / "invariants.md"


def test_the_document_lists_the_invariants_by_name_and_sentence() -> None:
    items = re.findall(
        r"^- \*\*(\w+)\*\*: (.+?)(?=\n\n|\n- |\Z)", DOCUMENT.read_text(), re.M | re.S
    )
    written = {name: " ".join(sentence.split()) for name, sentence in items}
    assert world.INVARIANTS
    assert written == invariants.sentences()
