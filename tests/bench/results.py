"""How every benchmark tells what it measured: a table for people, JSON for machines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "bench"


@dataclass(frozen=True)
class Figure:
    """One measured value, and the bound that it must keep, if there is one."""

    name: str
    value: float
    unit: str
    #: For example ">= 0.95" or "< 5".
    must: str = ""

    @property
    def holds(self) -> bool:
        if not self.must:
            return True
        sign, bound = self.must.split()
        match sign:
            case ">=":
                return self.value >= float(bound)
            case "<":
                return self.value < float(bound)
            case "<=":
                return self.value <= float(bound)
            case "==":
                return self.value == float(bound)
        raise ValueError(f"unknown bound {self.must!r}")


def tell(name: str, figures: list[Figure], folder: Path = FOLDER) -> bool:
    """Print the table and write build/bench/NAME.json; whether every bound is kept."""
    width = max((len(each.name) for each in figures), default=6)
    print(f"\n{'figure':{width}}  {'value':>12}  {'unit':10}  {'must':>10}  holds")
    for each in figures:
        holds = ("yes" if each.holds else "NO") if each.must else ""
        print(f"{each.name:{width}}  {each.value:12.3f}  {each.unit:10}  {each.must:>10}  {holds}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(each), "holds": each.holds} for each in figures]
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    return all(each.holds for each in figures)
