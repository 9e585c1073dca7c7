"""A benchmark of lm-evaluation-harness as a suite: MMLU first of all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.evaluation_suite import Benchmark, BenchmarkSize, Metric

from tunesmith_trainer.benchmarks.prepared import PreparedData, data_missing
from tunesmith_trainer.benchmarks.tasks import (
    DatasetLoader,
    NeededDataset,
    lm_eval_version,
    load_tasks,
    refused,
)
from tunesmith_trainer.evaluate.harness import HarnessSuite, items_of
from tunesmith_trainer.evaluate.stratified import first_of_each, in_turn
from tunesmith_trainer.failure import TrainerError, first_line

if TYPE_CHECKING:
    from datasets import DatasetDict
    from lm_eval.api.task import ConfigurableTask

#: Items of each subject that a fast run asks: with MMLU's 57 subjects, 2,850.
FAST_ITEMS = 50
#: Scores of one item between 0 and 1, the primary one of a task first.
SCORES = {
    "acc": Metric.ACCURACY,
    "exact_match": Metric.EXACT_MATCH,
    "acc_norm": Metric.ACCURACY,
    "em": Metric.EXACT_MATCH,
}


def benchmark_suite(name: str, benchmark: Benchmark, data: Path | None) -> HarnessSuite:
    """Read and check everything that is needed before a model is; ``data`` None is the hub.

    Raises TrainerError(BENCHMARK_UNKNOWN) for a task that cannot be judged item by item, and
    TrainerError(BENCHMARK_DATA_MISSING) naming the file and the command that prepares it.
    """
    loaded = load_tasks(benchmark.name, benchmark.shots, loader(benchmark, data))
    scores = {task.task_name: primary_score(task) for task in loaded.tasks}
    metrics = {SCORES[score] for score in scores.values()}
    if len(metrics) > 1:
        raise refused(benchmark.name, "has tasks with different metrics")
    found = [
        item
        for task in loaded.tasks
        for item in items_of(task, scores[task.task_name], alias(task))
    ]
    items = in_turn(found, subject=lambda item: item.question.group)
    first = len(items)
    if benchmark.size is BenchmarkSize.FAST:
        first = first_of_each((item.question.group for item in items), FAST_ITEMS)
    return HarnessSuite(
        name=name,
        metric=metrics.pop(),
        items=items,
        first=first,
        approximate=first < len(items),
        task=(
            f"{benchmark.name} {loaded.version} ({loaded.shots}-shot, lm-eval {lm_eval_version()})"
        ),
    )


def loader(benchmark: Benchmark, data: Path | None) -> DatasetLoader:
    if data is not None:
        return PreparedData(data, benchmark.data or str(data), benchmark.name).load

    def load(needed: NeededDataset) -> DatasetDict:
        from tunesmith_trainer.benchmarks.fetch import load_from_hub

        try:
            return load_from_hub(needed, None)
        except TrainerError as error:
            why = first_line(error.__cause__) if isinstance(error.__cause__, Exception) else error
            raise data_missing(
                benchmark.name, f"{needed} is not here, and the hub does not give it ({why})"
            ) from error

    return load


def alias(task: ConfigurableTask) -> str:
    """Name of the subject: mmlu_anatomy calls itself anatomy."""
    return str(task.config.task_alias or task.task_name)


def primary_score(task: ConfigurableTask) -> str:
    """The task's score for one item, if their mean is its score."""
    from lm_eval.api.registry import get_aggregation

    for score in SCORES:
        if task.aggregation().get(score) is get_aggregation("mean"):
            return score
    raise refused(task.task_name, f"has no mean of {', '.join(SCORES)} over its items")
