"""Statuses that were taken from a cluster, as files: one for each state and its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from examples.demo.kubectl import Object, conditions

FOLDER = Path(__file__).with_name("statuses")
#: All else of a status is no matter of health.
READ = ("state", "observedGeneration", "conditions")


def scene(raw: Object) -> str:
    """Kind, state, and the reason for it."""
    told = conditions(raw)
    stalled = told.get("Stalled", {})
    if stalled.get("status") == "True":
        reason = stalled["reason"]
    else:
        # Of an adapter that is trained, what counts is whether it may be served.
        first = told.get("Succeeded", told.get("Ready", {}))
        last = told.get("Passed", told.get("Ready", first))
        reason = last.get("reason") if first.get("status") == "True" else first.get("reason")
    return f"{raw['kind']}/{raw['status']['state']}-{reason}"


def keep(raw: Object) -> None:
    """Write down what a health check may read."""
    kept = {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "metadata": {key: raw["metadata"][key] for key in ("name", "generation")},
        "status": {key: raw["status"][key] for key in READ if key in raw["status"]},
    }
    path = FOLDER / f"{scene(raw)}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(kept, sort_keys=False, width=100, allow_unicode=True)
    path.write_text(f"# Taken from a cluster by tests/gitops/record.py.\n{text}")


def recorded() -> Iterator[Object]:
    for path in sorted(FOLDER.glob("*/*.yaml")):
        yield yaml.safe_load(path.read_text())
