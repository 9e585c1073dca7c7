"""Print the plan for each method: python -m tunesmith.memory_planner --help."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from tunesmith.api.memory import MemoryPlan
from tunesmith.api.method import Lora, Method
from tunesmith.api.trainer_contract import Hardware
from tunesmith.api.training import Training
from tunesmith.memory_planner.gpus import GIGABYTE
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.memory import GIB
from tunesmith.memory_planner.model_shape import ModelShape, read_shape
from tunesmith.memory_planner.planning import DoesNotFit, plan_memory
from tunesmith.memory_planner.request import PlanRequest

HEADINGS = (
    "| method | micro-batch x accumulation | checkpointing | optimizer | parallelism | GiB per GPU "
    "| tokens/s |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    arguments = parsed_arguments()
    training = Training(max_length=arguments.max_length, batch_size=arguments.batch_size)
    hardware = Hardware(
        gpus=arguments.gpus, nodes=arguments.nodes, gpu_memory_bytes=arguments.gpu_memory
    )
    print(HEADINGS)
    for method in arguments.method or Method:
        request = PlanRequest(
            arguments.model_shape,
            method,
            Lora(rank=arguments.rank),
            training,
            hardware,
            gpu_name=arguments.gpu_name,
        )
        print(row(method, plan_memory(request)))


def row(method: Method, plan: MemoryPlan | DoesNotFit) -> str:
    if isinstance(plan, DoesNotFit):
        return f"| {method} | {plan.message} | | | | | |"
    return "| " + " | ".join(cells(method, plan)) + " |"


def cells(method: Method, plan: MemoryPlan) -> Iterator[str]:
    yield method if method is plan.method else f"{method}: {plan.method}"
    yield f"{plan.micro_batch_size} x {plan.gradient_accumulation}"
    yield plan.activation_checkpointing
    yield plan.optimizer
    yield plan.parallelism or "-"
    yield f"{(plan.predicted_peak_bytes or 0) / GIB:.1f}"
    speed = plan.predicted_tokens_per_second
    yield "unknown" if speed is None else f"{speed:,.0f}"


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tunesmith.memory_planner",
        description="How a training would fit into GPUs, method by method; no GPU is needed.",
    )
    parser.add_argument(
        "--model-shape",
        type=shape,
        required=True,
        help=f"a config.json, or one of {', '.join(KNOWN_MODELS)}",
    )
    parser.add_argument("--gpu-memory", type=memory, required=True, help="of one GPU, as 80Gi")
    parser.add_argument("--gpu-name", help="as nvidia-smi prints it; default: by the memory")
    parser.add_argument("--gpus", type=int, default=1, help="per node")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--method", type=Method, action="append", help="default: all")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=8, help="sequences per optimiser step")
    return parser.parse_args()


def shape(text: str) -> ModelShape:
    if text in KNOWN_MODELS:
        return KNOWN_MODELS[text]
    try:
        return read_shape(json.loads(Path(text).read_text()))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def memory(text: str) -> int:
    """80Gi or 80G, as in resources.gpuMemory."""
    units = {"Gi": GIB, "G": GIGABYTE}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(Gi|G)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no memory: write 80Gi or 80G")
    return round(float(found[1]) * units[found[2]])


if __name__ == "__main__":
    main()
