"""The trainer on one GPU beside TRL 1.16 as it comes: tokens per second, and memory.

A randomly initialised Llama of 8B's shape, adapters of rank 16 on all seven projections, rows of
2048 tokens, unless a cell says otherwise. Ours is the Job's own code, apart from reading weights
from a disk. Each cell runs in a process of its own and adds its result to $OUT/train-cells.json
(or build/bench), so that several calls share the work:

    python -m tests.bench.training                      # every cell: 18 minutes on an H100
    python -m tests.bench.training --cells 'lora*,peak' # some, by pattern
    python -m tests.bench.training --cells none         # the table of what is measured so far

On a machine without a network bring wheels of trl, peft, bitsandbytes and datasets in the versions
of devcluster/ml-packages.txt, as tests/bench/gpu_evaluation.py tells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tunesmith.api.memory import Optimizer
from tunesmith.api.method import Method

from tests.bench.results import FOLDER, Figure, tell
from tests.bench.training_cells import FULL, GIBIBYTE, OFF, PARTIAL, Cell
from tests.bench.training_memory import MEMORY_CELLS, MemoryCell, peaks_of, planner_figures

OUT = Path(os.environ.get("OUT", FOLDER))
RESULTS = OUT / "train-cells.json"
PEAK, ISOLATION = "peak", "isolation"

PAGED = Optimizer.PAGED_ADAMW_8BIT
LORA, QLORA, DORA = Method.LORA, Method.QLORA, Method.DORA
CELLS = [
    Cell("lora-trl", "trl", LORA, 2, checkpointing=FULL, steps=10),
    Cell("lora", "ours", LORA, 6),
    # The dropout that a job has by default; the other cells have none.
    Cell("lora-dropout", "ours", LORA, 5, dropout=0.05),
    Cell("qlora-trl", "trl", QLORA, 2, checkpointing=FULL, steps=10),
    Cell("qlora", "ours", QLORA, 7),
    # What is planned for the default batch of 8: its largest divisor that fits the card.
    Cell("lora-planned", "ours", LORA, 4, accumulation=2),
    Cell("qlora-planned", "ours", QLORA, 4, accumulation=2),
    Cell("dora-trl", "trl", DORA, 2, checkpointing=FULL, steps=5),
    Cell("dora", "ours", DORA, 5),
    # Our LoRA in DoRA's setting.
    Cell("lora-as-dora", "ours", LORA, 5),
    Cell("ragged-padded-trl", "trl", LORA, 8, checkpointing=FULL, ragged=True, packing=False),
    Cell("ragged-packed-trl", "trl", LORA, 4, checkpointing=FULL, ragged=True, steps=5),
    Cell("ragged", "ours", LORA, 6, ragged=True),
    Cell("70b-trl", "trl", QLORA, 1, shape="70B", checkpointing=FULL, warm=2, steps=4),
    Cell("70b", "ours", QLORA, 4, shape="70B", checkpointing=FULL, warm=2, steps=4),
    Cell("full-trl", "trl", Method.FULL, 2, checkpointing=FULL, optimizer=PAGED),
    Cell("full", "ours", Method.FULL, 2, accumulation=6, optimizer=PAGED, warm=2, steps=4),
]

#: Lowest tokens/s of ours, and the words of the table.
TITLES = {
    "lora": ("LoRA bf16", 15000),
    "lora-planned": ("LoRA, rows of the default batch", None),
    "qlora-planned": ("QLoRA, rows of the default batch", None),
    "lora-dropout": ("LoRA with dropout 0.05", None),
    "qlora": ("QLoRA NF4, double quantisation", 14000),
    "dora": ("DoRA", None),
    "lora-as-dora": ("LoRA in DoRA's setting", None),
    "ragged": ("ragged chat data, real tokens", None),
    "70b": ("70B QLoRA", 1300),
    "full": ("full 8B, paged 8-bit AdamW", 8000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the trainer on one GPU.")
    parser.add_argument("--cells", default="*", help="names or patterns, with commas between")
    parser.add_argument("--try-out", action="store_true", help="a tiny model and short rows")
    options = parser.parse_args()
    patterns = options.cells.split(",")
    OUT.mkdir(parents=True, exist_ok=True)
    everything: list[str | Cell | MemoryCell] = [PEAK, ISOLATION, *CELLS, *MEMORY_CELLS]
    for cell in everything:
        if options.try_out:
            cell = tried_out(cell)
        if any(fnmatch(name_of(cell), pattern) for pattern in patterns):
            remember(name_of(cell), in_a_process(cell))
    results = recalled()
    figures = [*speed_figures(results), *planner_figures(peaks_of(results, CELLS))]
    if not tell("train", figures, OUT):
        raise SystemExit("a bound is not kept")


def tried_out(cell: str | Cell | MemoryCell) -> str | Cell | MemoryCell:
    """The same way on a CPU, in seconds."""
    match cell:
        case Cell():
            return replace(cell, shape="tiny", length=64, warm=1, steps=1)
        case MemoryCell():
            settings = tuple((rows, 64, policy) for rows, _, policy in cell.settings)
            return replace(cell, shape="tiny", settings=settings)
    return cell


def name_of(cell: str | Cell | MemoryCell) -> str:
    return cell if isinstance(cell, str) else cell.name


# --- processes -----------------------------------------------------------------------------------


def in_a_process(cell: str | Cell | MemoryCell) -> dict[str, Any]:
    """A new interpreter: the import of TRL begins with CUDA, which does not survive a fork."""
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    context = multiprocessing.get_context("spawn")
    began = time.monotonic()
    name, limit = name_of(cell), 60 if isinstance(cell, str) else cell.limit
    print(f"--> {name}", flush=True)
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(cell, sending))
    process.start()
    sending.close()
    try:
        result = receiving.recv() if receiving.poll(limit) else {"error": f"took over {limit} s"}
    except EOFError:
        result = {"error": "the process ended without a word"}
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    print(f"    {time.monotonic() - began:.0f} s: {summary(result)}", flush=True)
    return result


def summary(result: dict[str, Any]) -> str:
    shown = {name: value for name, value in result.items() if isinstance(value, int | float)}
    return str(result.get("error") or {name: round(value, 2) for name, value in shown.items()})


def answer(cell: str | Cell | MemoryCell, sending: Any) -> None:
    """In the process: carry the cell out and send what came of it."""
    from tests.bench.training_attention import measure_isolation
    from tests.bench.training_cells import card_peak, measure
    from tests.bench.training_memory import measure_memory

    try:
        match cell:
            case "peak":
                result: dict[str, Any] = {"tflops": card_peak(), "card": card_name()}
            case str():
                result = measure_isolation()
            case MemoryCell():
                result = measure_memory(cell)
            case Cell():
                result = measure(cell)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        result = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    sending.send(result)


def card_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


# --- results -------------------------------------------------------------------------------------


def recalled() -> dict[str, dict[str, Any]]:
    if not RESULTS.exists():
        return {}
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())
    return results


def remember(name: str, result: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps({**recalled(), name: result}, indent=1) + "\n")


def speed_figures(results: dict[str, dict[str, Any]]) -> list[Figure]:
    figures = []
    peak = results.get(PEAK, {}).get("tflops")
    if peak:
        figures.append(Figure("measured bf16 peak", peak, "TFLOP/s"))
    if isolation := results.get(ISOLATION, {}):
        name = "packed attention: relative difference from documents"
        figures.append(Figure(f"{name} one by one", isolation["apart"], "", "<= 0.01"))
        figures.append(Figure(f"{name}, if one saw the other", isolation["mixed"], "", ">= 0.1"))
    for cell in CELLS:
        found = results.get(cell.name, {})
        title, least = TITLES[cell.title]
        setting = f"{title}: {described(cell)}"
        if "tokens_per_second" not in found:
            continue
        must = f">= {least}" if least and cell.trainer == "ours" else ""
        figures.append(Figure(setting, found["tokens_per_second"], "tokens/s", must))
        held = (found["peak_bytes"] + found["managed_bytes"]) / GIBIBYTE
        must = "<= 54" if cell.name == "70b" else ""
        figures.append(Figure(f"{setting}, memory", held, "GiB", must))
    return [
        *figures,
        *ratio(results, "DoRA / LoRA in the same setting", "dora", "lora-as-dora", ">= 0.85"),
        *ratio(results, "ragged / whole rows, ours", "ragged", "lora", ">= 0.9"),
        *ratio(results, "LoRA, ours / TRL", "lora", "lora-trl"),
        *ratio(results, "QLoRA, ours / TRL", "qlora", "qlora-trl"),
        *ratio(results, "DoRA, ours / TRL", "dora", "dora-trl"),
        *ratio(results, "ragged, ours / TRL padded", "ragged", "ragged-padded-trl"),
        *ratio(results, "ragged, ours / TRL packed", "ragged", "ragged-packed-trl"),
        *ratio(results, "70B, ours / TRL", "70b", "70b-trl"),
        *ratio(results, "full, ours / TRL", "full", "full-trl"),
    ]


def described(cell: Cell) -> str:
    who = "ours" if cell.trainer == "ours" else "TRL"
    packed = {True: "packed", False: "padded"}[cell.packing] if cell.ragged else ""
    kept = {OFF: "", PARTIAL: "half recomputed", FULL: "recomputed"}[cell.checkpointing]
    steps = f"{cell.rows}x{cell.length}" + (
        f"x{cell.accumulation}" if cell.accumulation > 1 else ""
    )
    return " ".join(each for each in (who, packed, steps, kept) if each)


def ratio(
    results: dict[str, dict[str, Any]], title: str, above: str, below: str, must: str = ""
) -> list[Figure]:
    upper, lower = (results.get(each, {}).get("tokens_per_second", 0.0) for each in (above, below))
    return [Figure(title, upper / lower, "", must)] if upper and lower else []


if __name__ == "__main__":
    main()
