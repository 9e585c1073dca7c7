"""report.html of a training: one page that needs nothing but itself, offline and on paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.api.memory import MemoryPlan

from tunesmith_trainer.evaluate.report.page import short_digest, visible
from tunesmith_trainer.lineage import Lineage
from tunesmith_trainer.train.checkpoints import Attempt
from tunesmith_trainer.train.report.curves import Curve, Frame, smoothed, thinned

FOLDER = Path(__file__).parent
#: The looks of all reports.
SHARED = FOLDER.parent.parent / "evaluate" / "report"
GIB = 2**30


def render(
    lineage: Lineage, history: Sequence[Mapping[str, Any]], attempts: Sequence[Attempt]
) -> str:
    """The page as HTML. Equal inputs give equal pages. ``history`` is metrics.json."""
    from jinja2 import (  # type: ignore[import-not-found,unused-ignore]
        Environment,
        FileSystemLoader,
        StrictUndefined,
    )

    environment = Environment(
        loader=FileSystemLoader([FOLDER, SHARED]),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(short_digest=short_digest, gib=gib, whole=whole, number=number)
    losses = points(history, "loss")
    evaluated = points(history, "eval_loss")
    page = environment.get_template("training.html").render(
        lineage=lineage,
        plan=lineage.plan,
        run=lineage.run,
        memory=lineage.plan.memory,
        receipt=lineage.dataset,
        attempts=attempts,
        evaluations=evaluations(history, lineage.run.published_step),
        frame=frame(losses, evaluated),
        rate=curve(points(history, "learning_rate"), "learning rate"),
        hyperparameters=hyperparameters(lineage),
        deviation=deviation(lineage.plan.memory, lineage),
    )
    return str(page)


def points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of every entry that has it and is a number."""
    return [
        (float(entry["step"]), float(entry[name]))
        for entry in history
        if name in entry and "step" in entry and math.isfinite(float(entry[name]))
    ]


def frame(losses: list[tuple[float, float]], evaluated: list[tuple[float, float]]) -> Frame:
    """Loss of each step, its moving mean, and the losses on the dev slice."""
    return Frame.around(
        [
            Curve("loss of each step", thinned(losses), "raw"),
            Curve("moving mean", thinned(smoothed(losses)), "mean"),
            Curve("loss on the dev slice", evaluated, "dev", dots=True),
        ]
    )


def curve(values: list[tuple[float, float]], name: str) -> Frame:
    return Frame.around([Curve(name, thinned(values), "mean")], height=120)


def evaluations(history: Sequence[Mapping[str, Any]], best: int) -> list[dict[str, Any]]:
    return [
        {
            "step": int(entry["step"]),
            "epoch": float(entry.get("epoch") or 0.0),
            "loss": float(entry["eval_loss"]),
            "is_published": int(entry["step"]) == best,
        }
        for entry in history
        if "eval_loss" in entry
    ]


def hyperparameters(lineage: Lineage) -> dict[str, object]:
    """As they stand in the spec: the plan has them with their defaults."""
    plan = lineage.plan
    adapter = {} if plan.memory.method == "Full" else {"lora": plan.lora.to_json()}
    parts: dict[str, dict[str, object]] = {"training": plan.training.to_json(), **adapter}
    return {
        f"{part}.{name}": ", ".join(map(str, value)) if isinstance(value, list) else value
        for part, values in parts.items()
        for name, value in values.items()
    }


def deviation(memory: MemoryPlan, lineage: Lineage) -> str | None:
    """How far the predicted peak is from the measured one, in percent of the latter."""
    measured, predicted = lineage.run.peak_memory_bytes, memory.predicted_peak_bytes
    if not measured or not predicted or lineage.device == "cpu":
        return None
    return f"{100 * (predicted - measured) / measured:+.1f}%".replace("-", "\N{MINUS SIGN}")


def gib(size: int | None) -> str:
    return "\N{EN DASH}" if size is None else f"{size / GIB:.1f} GiB"


def whole(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:,.0f}"


def number(value: float) -> str:
    return f"{value:.4g}"
