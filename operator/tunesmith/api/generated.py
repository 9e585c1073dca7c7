"""Files that are generated from the API models: written, or found to be stale."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(files: dict[Path, str], command: str, *, check_only: bool) -> int:
    """Write what differs, or name it together with the command that writes it. An exit code."""
    differing = [
        path for path, text in files.items() if not path.exists() or path.read_text() != text
    ]
    if check_only:
        for path in differing:
            print(f"stale, run `{command}`: {path}", file=sys.stderr)
        return 1 if differing else 0
    for path in differing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print(f"wrote {path}")
    return 0
