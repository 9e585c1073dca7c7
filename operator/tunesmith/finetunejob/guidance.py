"""What lies outside the proven range: said as a warning, never refused. Pure.

The ranges are those of common practice for LoRA (arXiv:2106.09685, arXiv:2305.14314) and for the
size of a dataset (arXiv:2305.11206).
"""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.method import Lora, Method
from tunesmith.api.sample_size import WORTH_SEEING_POINTS, detectable_points

FEWEST_EXAMPLES = 100
MOST_EXAMPLES = 5000


def warnings(
    spec: FineTuneJobSpec, dataset: DatasetReceipt | None, held_out_items: int | None
) -> list[str]:
    """One sentence for each thing that is unusual.

    ``held_out_items`` are the examples that the verdict rests on, once they are counted.
    """
    return [
        *(_lora_warnings(spec.lora) if spec.method is not Method.FULL else ()),
        *_method_warnings(spec.method),
        *(_dataset_warnings(dataset) if dataset else ()),
        *(_sample_warnings(held_out_items) if held_out_items else ()),
    ]


def _method_warnings(method: Method) -> Iterator[str]:
    if method.is_dora:
        yield (
            f"vLLM cannot serve an adapter of method {method} beside its base model: serve it with "
            "strategy: Merged."
        )
    if method is Method.FULL:
        yield (
            "method Full makes a model, not an adapter: an AdapterDeployment serves it only as a "
            "base model of its own."
        )


def _lora_warnings(lora: Lora) -> Iterator[str]:
    if not 4 <= lora.rank <= 64 or lora.rank & (lora.rank - 1):
        yield f"lora.rank is {lora.rank}; powers of two from 4 to 64 are proven."
    if lora.alpha not in (lora.rank, 2 * lora.rank):
        yield (
            f"lora.alpha is {lora.alpha}; with rank {lora.rank}, "
            f"{lora.rank} or {2 * lora.rank} is usual."
        )
    if lora.dropout > 0.1:
        yield f"lora.dropout is {lora.dropout:g}; 0 to 0.1 is usual."


def _dataset_warnings(dataset: DatasetReceipt) -> Iterator[str]:
    if dataset.train_rows < FEWEST_EXAMPLES:
        yield (
            f"Only {dataset.train_rows} examples to train on: {FEWEST_EXAMPLES} to 500 suit a "
            "domain, 1000 to 5000 a task."
        )
    if dataset.train_rows > MOST_EXAMPLES:
        yield (
            f"{dataset.train_rows} examples to train on: more than {MOST_EXAMPLES} seldom help; "
            "fewer and cleaner ones often do."
        )


def _sample_warnings(items: int) -> Iterator[str]:
    points = detectable_points(items)
    if points > WORTH_SEEING_POINTS:
        yield (
            f"{items} held-out examples detect {points:g} points: a smaller gain cannot be told "
            "from chance, and the verdict may be Inconclusive. Raise dataset.heldOut.fraction or "
            "evaluation.maxItems, or add data."
        )
