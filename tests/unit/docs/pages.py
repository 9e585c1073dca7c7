"""The documents of this project, as a reader finds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: A block of code: its language, what is said after it, and the text.
FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One document."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """Without its blocks of code."""
        return FENCE.sub("", self.text)

    def blocks(self, language: str, word: str | None = None) -> Iterator[str]:
        """The blocks in a language; with a word, those that it stands beside."""
        for found in FENCE.finditer(self.text):
            if found[1] == language and word in (None, found[2].strip()):
                yield found[3]

    def anchors(self) -> set[str]:
        """The headings, as a browser of repositories names them in an address."""
        return {anchor(found[1]) for found in HEADING.finditer(self.prose)}


def anchor(heading: str) -> str:
    words = re.sub(r"[^\w\- ]", "", heading.lower())
    return words.replace(" ", "-")


def pages() -> list[Page]:
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "devcluster" / "README.md"]
    return [Page(path) for path in sorted(found)]


def page(name: str) -> Page:
    return Page(ROOT / "docs" / name)
