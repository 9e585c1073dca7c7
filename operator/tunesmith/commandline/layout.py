"""How text is laid out: tables, sizes, signs. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

GIB = 1 << 30
#: Messages of conditions are wrapped to it.
WIDTH = 100


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, as kubectl prints them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """``name  value`` below a heading, wrapped beside the names."""
    known = list(pairs)
    width = max((len(name) for name, _ in known), default=0) + 4
    return [
        line
        for name, value in known
        for line in textwrap.wrap(
            value,
            WIDTH,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def gib(size: int | float) -> str:
    return f"{size / GIB:.1f} GiB"


def points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def short(digest: str) -> str:
    """Enough of a digest to tell it from others: what versions are called."""
    return digest.removeprefix("sha256:")[:12]


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
