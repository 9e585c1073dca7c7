"""The memory planner's word against the card's: predicted and measured peaks of many settings."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.api.memory import ActivationCheckpointing, Optimizer
from tunesmith.api.method import Lora, Method
from tunesmith.api.training import Backend, Training

from tests.bench.results import Figure
from tests.bench.training_cells import FULL, GIBIBYTE, OFF, PARTIAL, Cell, memory

#: Rows of a micro-batch, their length, and what is recomputed.
Setting = tuple[int, int, ActivationCheckpointing]


@dataclass(frozen=True)
class MemoryCell:
    """One model and method in one process, trained for two steps in each setting."""

    name: str
    method: Method
    settings: tuple[Setting, ...]
    shape: str = "8B"
    optimizer: Optimizer = Optimizer.ADAMW
    limit: int = 200

    def cells(self) -> list[Cell]:
        return [
            Cell(
                f"{self.name} {rows}x{length} {policy}",
                "ours",
                self.method,
                rows,
                shape=self.shape,
                length=length,
                checkpointing=policy,
                optimizer=self.optimizer,
                warm=1,
                steps=1,
            )
            for rows, length, policy in self.settings
        ]


PAGED = Optimizer.PAGED_ADAMW_8BIT
MEMORY_CELLS = [
    MemoryCell(
        "memory-lora",
        Method.LORA,
        ((2, 2048, OFF), (4, 2048, PARTIAL), (8, 2048, FULL), (1, 8192, PARTIAL)),
    ),
    MemoryCell("memory-qlora", Method.QLORA, ((2, 4096, OFF), (4, 2048, PARTIAL), (8, 2048, FULL))),
    MemoryCell("memory-dora", Method.DORA, ((2, 2048, OFF), (4, 2048, PARTIAL))),
    MemoryCell("memory-qdora", Method.QDORA, ((2, 2048, OFF), (8, 2048, FULL))),
    MemoryCell("memory-full", Method.FULL, ((1, 2048, OFF), (4, 2048, FULL)), optimizer=PAGED),
    MemoryCell("memory-1b", Method.LORA, ((8, 2048, OFF), (16, 2048, FULL)), shape="1B"),
    MemoryCell(
        "memory-1b-full",
        Method.FULL,
        ((4, 2048, OFF),),
        shape="1B",
        optimizer=Optimizer.ADAMW_8BIT,
    ),
]


def measure_memory(cell: MemoryCell) -> dict[str, Any]:
    """The peaks of all settings of a model that is made once."""
    import torch
    from tunesmith_trainer.train.engine import attention, layering
    from tunesmith_trainer.train.engine.build import equip
    from tunesmith_trainer.train.settings import engine_settings

    from tests.bench.training_cells import memory_plan, train_ours
    from tests.bench.training_models import random_model

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    cells = cell.cells()
    kept = replace(cells[0], checkpointing=OFF)
    model = equip(
        random_model(
            cell.shape, attention.register(), device, dtype, quantised=cell.method.is_quantised
        ),
        cell.name,
        engine_settings(
            memory_plan(kept), Lora(dropout=0), Training(), Backend.TUNESMITH, on_gpu=on_gpu
        ),
    )
    peaks = []
    for each in cells:
        layering.checkpoint(model, each.checkpointing, dropout=False)
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch._dynamo.reset()
        with tempfile.TemporaryDirectory() as folder:
            _, trainer = train_ours(each, model, Path(folder), on_gpu)
        peaks.append({**configuration(each), **memory(trainer)})
        print(f"    {each.name}: {peaks[-1]['peak_bytes'] / GIBIBYTE:.2f} GiB", flush=True)
        model.zero_grad()
        del trainer
    return {"peaks": peaks}


def configuration(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "shape": cell.shape,
        "method": str(cell.method),
        "rank": 16,
        "dropout": cell.dropout,
        "rows": cell.rows,
        "length": cell.length,
        "accumulation": cell.accumulation,
        "checkpointing": str(cell.checkpointing),
        "optimizer": str(cell.optimizer),
    }


def peaks_of(results: dict[str, dict[str, Any]], speed_cells: list[Cell]) -> list[dict[str, Any]]:
    """Of the cells of memory, and of those of speed that are ours."""
    found = [peak for result in results.values() for peak in result.get("peaks", [])]
    for cell in speed_cells:
        result = results.get(cell.name, {})
        if cell.trainer == "ours" and "peak_bytes" in result:
            measured = {name: result[name] for name in ("peak_bytes", "managed_bytes")}
            found.append({**configuration(cell), **measured})
    return found


def planner_figures(peaks: list[dict[str, Any]]) -> list[Figure]:
    """Predicted over measured, for each setting, and the largest error."""
    try:
        from tunesmith.memory_planner.memory import Setup, predict
        from tunesmith.memory_planner.model_shape import read_shape

        from tests.bench.training_models import config_of
    except ImportError:
        return []
    figures = []
    errors = []
    for peak in peaks:
        need = predict(
            read_shape({**config_of(peak["shape"]).to_dict(), "model_type": "llama"}),
            Setup(
                method=Method(peak["method"]),
                rank=peak["rank"],
                dropout=peak["dropout"],
                target_modules=tuple(Lora().target_modules),
                length=peak["length"],
                micro_batch=peak["rows"],
                checkpointing=ActivationCheckpointing(peak["checkpointing"]),
                optimizer=Optimizer(peak["optimizer"]),
                accumulates=peak["accumulation"] > 1,
            ),
        )
        measured = peak["peak_bytes"]
        if not measured:
            continue
        errors.append(abs(need.peak / measured - 1))
        figures.append(Figure(f"planner: {peak['name']}", need.peak / GIBIBYTE, "GiB"))
        figures.append(Figure(f"measured: {peak['name']}", measured / GIBIBYTE, "GiB"))
    if errors:
        figures.append(Figure("planner, settings compared", len(errors), "", ">= 12"))
        figures.append(Figure("planner, largest error", 100 * max(errors), "%", "<= 8"))
    return figures
