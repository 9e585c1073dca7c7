"""Write the demonstration's dataset: package announcements in, JSON records out.

The examples are made from the package records that apt keeps on every Debian machine. The text of
an announcement is written from a record; the answer is the record's fields in JSON, all of which
stand in the text. The same records, seed and count give the same file.

    python make_dataset.py FILE [--count 480] [--seed 7]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

DPKG_STATUS = Path("/var/lib/dpkg/status")

SYSTEM = (
    "Read the package announcement and answer with one JSON object and nothing else. Keys: "
    "name; upstream (the version without the part after its last hyphen); revision (the part of "
    "the version after its last hyphen); arch; section; size_mb (the installed size as a number "
    "of megabytes)."
)

TEMPLATES = (
    "{name} {version} is out for {arch} in section {section}, taking {size} MB once installed.",
    "New in {section}: {name}, version {version} ({arch}). Installed size: {size} MB.",
    "We uploaded version {version} of {name} for {arch}. It needs {size} MB and is filed under "
    "{section}.",
    "{arch} users can now install {name} {version} from {section}; it occupies {size} MB.",
)


def package_records() -> str:
    """Everything apt knows about, or what is installed where apt has no lists."""
    try:
        command = ["apt-cache", "dumpavail"]
        available = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        available = ""
    return available if available.strip() else DPKG_STATUS.read_text(encoding="utf-8")


def parse_records(text: str) -> Iterator[dict[str, str]]:
    """The fields of each record; continued lines are left out."""
    for record in text.split("\n\n"):
        lines = (line.partition(": ") for line in record.splitlines() if not line.startswith(" "))
        yield {name: value.strip() for name, _, value in lines}


def usable(records: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Records with every field that is asked for, a revision among them, sorted by name."""
    needed = {"Package", "Version", "Architecture", "Section", "Installed-Size"}
    chosen = {
        record["Package"]: record
        for record in records
        if needed <= record.keys() and "-" in record["Version"] and len(record["Version"]) <= 24
    }
    return [chosen[name] for name in sorted(chosen)]


def example(record: dict[str, str], random_source: random.Random) -> dict[str, object]:
    """One conversation: the task, the announcement, and the answer."""
    upstream, _, revision = record["Version"].rpartition("-")
    size = round(int(record["Installed-Size"]) / 1024, 1)
    announcement = random_source.choice(TEMPLATES).format(
        name=record["Package"],
        version=record["Version"],
        arch=record["Architecture"],
        section=record["Section"],
        size=size,
    )
    answer = {
        "name": record["Package"],
        "upstream": upstream,
        "revision": revision,
        "arch": record["Architecture"],
        "section": record["Section"],
        "size_mb": size,
    }
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": announcement},
            {"role": "assistant", "content": json.dumps(answer)},
        ]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a dataset made from package records.")
    parser.add_argument("file", type=Path, help="where the dataset goes, as JSON Lines")
    parser.add_argument("--count", type=int, default=400, help="number of examples")
    parser.add_argument("--seed", type=int, default=7, help="seed of the choice")
    options = parser.parse_args()

    records = usable(parse_records(package_records()))
    random_source = random.Random(options.seed)
    chosen = random_source.sample(records, min(options.count, len(records)))
    rows = [example(record, random_source) for record in chosen]
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    print(f"wrote {len(rows)} examples to {options.file}")


if __name__ == "__main__":
    main()
