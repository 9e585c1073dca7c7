"""Write the demonstration's dataset: package announcements in, JSON records out.

The examples are made from the package records that apt keeps on every Debian machine. The text of
an announcement is written from a record; the answer is the record's fields in JSON, all of which
stand in the text. The same records, seed and count give the same file.

    python make_dataset.py FILE [--count 320] [--seed 7]
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
    "Answer with one JSON object: name, upstream (the version before its last hyphen), revision "
    "(the version after it), arch, section."
)

#: The base model is shown the task once, so that it is a fair opponent: without an example it
#: answers in prose.
SHOWN = {
    "Package": "hello",
    "Version": "2.10-3",
    "Architecture": "amd64",
    "Section": "devel",
}

TEMPLATES = (
    "New in {section}: {name}, version {version} ({arch}).",
    "{name} {version} is out for {arch}, in section {section}.",
    "We uploaded version {version} of {name} for {arch}, filed under {section}.",
    "{arch} users can now install {name} {version} from {section}.",
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
    needed = {"Package", "Version", "Architecture", "Section"}
    chosen = {
        record["Package"]: record
        for record in records
        if needed <= record.keys() and "-" in record["Version"] and len(record["Version"]) <= 24
    }
    return [chosen[name] for name in sorted(chosen)]


def example(record: dict[str, str], template: str) -> dict[str, object]:
    """One conversation: the task, one solved announcement, the announcement, and its answer."""
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": announcement(SHOWN, TEMPLATES[0])},
            {"role": "assistant", "content": answer(SHOWN)},
            {"role": "user", "content": announcement(record, template)},
            {"role": "assistant", "content": answer(record)},
        ]
    }


def announcement(record: dict[str, str], template: str) -> str:
    return template.format(
        name=record["Package"],
        version=record["Version"],
        arch=record["Architecture"],
        section=record["Section"],
    )


def answer(record: dict[str, str]) -> str:
    upstream, _, revision = record["Version"].rpartition("-")
    return json.dumps(
        {
            "name": record["Package"],
            "upstream": upstream,
            "revision": revision,
            "arch": record["Architecture"],
            "section": record["Section"],
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a dataset made from package records.")
    parser.add_argument("file", type=Path, help="where the dataset goes, as JSON Lines")
    parser.add_argument("--count", type=int, default=320, help="number of examples")
    parser.add_argument("--seed", type=int, default=7, help="seed of the choice")
    options = parser.parse_args()

    records = usable(parse_records(package_records()))
    random_source = random.Random(options.seed)
    chosen = random_source.sample(records, min(options.count, len(records)))
    rows = [example(record, random_source.choice(TEMPLATES)) for record in chosen]
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    print(f"wrote {len(rows)} examples to {options.file}")


if __name__ == "__main__":
    main()
