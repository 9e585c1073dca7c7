"""Questions that lm-evaluation-harness asks and scores, item by item and side by side.

Its tasks are rendered once before anybody is asked, so that the questions are known; what is asked
then must be the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunesmith.api.evalrun import Asked
from tunesmith.api.evaluation_suite import Metric

from tunesmith_trainer.benchmarks.tasks import EXAMPLES_SEED, lm_eval_version
from tunesmith_trainer.evaluate.measured import Answer, Question, Side

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

    from tunesmith_trainer.evaluate.sides import Sides, WatchedModel


@dataclass(frozen=True)
class Item:
    """One row of a task."""

    task: ConfigurableTask
    #: Number of the row among those that the task judges by.
    row: int
    #: lm-eval's name for the score of one item, from 0 to 1.
    score: str
    question: Question
    #: The row in canonical JSON.
    data: str


@dataclass(frozen=True)
class HarnessSuite:
    """A suite of items in an order of which every beginning is a fair sample."""

    name: str
    metric: Metric
    items: Sequence[Item]
    first: int
    approximate: bool
    #: Benchmark, its version, and the library's.
    task: str
    #: Who is asked; the questions are known without.
    sides: Sides | None = None

    def between(self, sides: Sides) -> HarnessSuite:
        """The same suite, ready to be asked."""
        return replace(self, sides=sides)

    @cached_property
    def questions(self) -> Sequence[Question]:
        return [item.question for item in self.items]

    def asked(self, count: int) -> Asked:
        asked = self.items[:count]
        return Asked(
            data=digest_of(item.data for item in asked),
            prompts=digest_of(item.question.key for item in asked),
            task=self.task,
        )

    def answers(self, side: Side, start: int, stop: int) -> list[Answer]:
        from tunesmith_trainer.evaluate.sides import plain_text

        if self.sides is None:
            raise RuntimeError(f"suite {self.name} has nobody to ask")
        with self.sides.on(side) as model, plain_text(model):
            return ask(model, self.items[start:stop])


def digest_of(lines: Any) -> str:
    total = hashlib.sha256()
    for line in lines:
        total.update(f"{line}\n".encode())
    return f"sha256:{total.hexdigest()}"


def items_of(
    task: ConfigurableTask, score: str, group: str | Callable[[dict[str, Any]], str]
) -> list[Item]:
    """Every row of a task, with its prompt as the model will see it.

    ``group`` is the subject, or what tells it from the row.
    """
    task.set_fewshot_seed(EXAMPLES_SEED)
    task.build_all_requests()
    requests: dict[int, list[Any]] = defaultdict(list)
    for request in task.instances:
        requests[request.doc_id].append(request)
    return [
        Item(
            task=task,
            row=row,
            score=score,
            question=Question(
                prompt=str(first.args[0]),
                expected=expected_of(task, first.doc),
                group=group(first.doc) if callable(group) else group,
                settings=settings_of(task, score, [request.args for request in of_row]),
            ),
            data=canonical(first.doc),
        )
        for row, of_row in requests.items()
        for first in of_row[:1]
    ]


def settings_of(task: ConfigurableTask, score: str, arguments: Sequence[Any]) -> str:
    """All that an answer depends on besides the prompt: choices or bounds, and how it is scored."""
    prompt = arguments[0][0]
    further = [[None if context == prompt else context, *rest] for context, *rest in arguments]
    return canonical(
        {
            "task": task.task_name,
            "version": str(task.VERSION),
            "score": score,
            "harness": lm_eval_version(),
            "requests": further,
        }
    )


def canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)


def expected_of(task: ConfigurableTask, row: dict[str, Any]) -> str:
    """The right answer: of choices its text, not its number."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(task.doc_to_target(row))
    # Where the choices are spelt out in prompts of their own, the text is the number.
    target = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
    return str(task.doc_to_choice(row)[target]) if isinstance(target, int) else str(target)


def ask(model: WatchedModel, items: Sequence[Item]) -> list[Answer]:
    """The answers to the items, in their order."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    rows: dict[str, list[int]] = defaultdict(list)
    for item in items:
        rows[item.task.task_name].append(item.row)
    # Only tasks with rows: lm-eval takes an empty list for all of them.
    tasks = {item.task.task_name: item.task for item in items}
    results = simple_evaluate(
        model=model,
        tasks=list(tasks.values()),
        task_manager=TaskManager(include_defaults=False),
        # lm-eval walks the rows upwards and counts along this list.
        samples={name: sorted(of_task) for name, of_task in rows.items()},
        # Intervals are ours.
        bootstrap_iters=0,
        log_samples=True,
        use_cache=None,
    )
    samples = {
        (name, int(sample["doc_id"])): sample
        # A task with several filters reports a row for each; the first is its primary one.
        for name, of_task in results["samples"].items()
        for sample in reversed(of_task)
    }
    return [answer_of(item, samples[item.task.task_name, item.row]) for item in items]


def answer_of(item: Item, sample: dict[str, Any]) -> Answer:
    planned = hashlib.sha256(item.question.prompt.encode()).hexdigest()
    if sample["prompt_hash"] != planned:
        raise RuntimeError(
            f"task {item.task.task_name} row {item.row}: the model was asked something else than "
            "planned"
        )
    said = sample["filtered_resps"]
    if item.task.OUTPUT_TYPE == "multiple_choice":
        choices = item.task.doc_to_choice(sample["doc"])
        likelihoods = [float(said[number][0]) for number in range(len(choices))]
        text = str(choices[likelihoods.index(max(likelihoods))])
    else:
        text = str(said[0])
    return Answer(text=text, score=100 * float(sample[item.score]))
