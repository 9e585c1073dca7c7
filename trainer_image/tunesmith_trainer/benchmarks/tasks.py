"""The tasks of a benchmark, as lm-evaluation-harness ships them, with their data from where we say.

Only what the pinned package holds can be named: a task's file is code.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line

if TYPE_CHECKING:
    from datasets import DatasetDict
    from lm_eval.api.group import Group
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

#: Folders that hold all of a benchmark: to index them alone takes 0.1 s, to index all takes 11 s.
FOLDERS = {"mmlu": "mmlu/default"}
#: How MMLU is asked everywhere (arXiv:2009.03300); its files do not say so.
MMLU_SHOTS = 5
#: Seed for the choice of solved examples, lm-eval's own.
EXAMPLES_SEED = 1234
OUTPUT_TYPES = ("multiple_choice", "generate_until")


@dataclass(frozen=True)
class NeededDataset:
    """A dataset that a task reads: its repository, its part, and which splits."""

    path: str
    name: str | None
    splits: tuple[str, ...]
    #: Further arguments of datasets.load_dataset.
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.path} {self.name}" if self.name else self.path


DatasetLoader = Callable[[NeededDataset], "DatasetDict"]


@dataclass(frozen=True)
class BenchmarkTasks:
    """A benchmark, ready to be asked."""

    name: str
    version: str
    tasks: list[ConfigurableTask]
    #: For a group, how lm-eval puts its tasks together.
    group: Group | None

    @property
    def shots(self) -> str:
        """How many solved examples; several numbers if the tasks differ."""
        return "/".join(str(shots) for shots in sorted({t.config.num_fewshot for t in self.tasks}))


@cache
def lm_eval_version() -> str:
    return version("lm_eval")


def load_tasks(name: str, shots: int | None, load: DatasetLoader) -> BenchmarkTasks:
    """Every task of a benchmark, with its dataset from ``load``.

    Raises TrainerError(BENCHMARK_UNKNOWN) for a name that is none, and for a task that cannot be
    judged item by item.
    """
    from lm_eval.tasks._factory import TaskFactory

    keep_compiled_templates()
    manager = find(name)
    # What is overridden for a group holds for all its tasks.
    overrides = {"class": task_class(shots, load)}
    index = manager.task_index
    for member in members(index, name):
        require_judgeable(member.name, member.cfg or {}, member.kind)
    try:
        built = TaskFactory().build(index[name], overrides=overrides, registry=index)
        loaded = manager.load(built if isinstance(built, list) else [built])
    except (TrainerError, MemoryError):
        raise
    except Exception as error:
        raise refused(name, f"cannot be set up ({first_line(error)})") from error
    tasks, group = list(loaded["tasks"].values()), loaded["groups"].get(name)
    return BenchmarkTasks(name, group.version if group else str(tasks[0].VERSION), tasks, group)


def members(index: dict[str, Entry], name: str) -> Iterator[Entry]:
    """The tasks of a group or tag, by what their files say: none of their functions is imported."""
    from lm_eval.tasks._index import Kind

    entry = index[name]
    match entry.kind:
        case Kind.GROUP:
            listed = (entry.cfg or {}).get("task") or []
            inner = [each if isinstance(each, str) else each.get("task") for each in listed]
        case Kind.TAG:
            inner = sorted(entry.tags)
        case _:
            yield entry
            return
    for each in inner:
        if isinstance(each, str) and each in index:
            yield from members(index, each)


def keep_compiled_templates() -> None:
    """lm-eval compiles a template anew for each row: a minute for every pass over MMLU."""
    from lm_eval import utils

    if not hasattr(utils.env.from_string, "cache_info"):
        utils.env.from_string = lru_cache(maxsize=1024)(utils.env.from_string)


def find(name: str) -> TaskManager:
    """An index of tasks that has the name."""
    import lm_eval.tasks

    folder = FOLDERS.get(name)
    if folder:
        root = Path(lm_eval.tasks.__file__).parent
        return lm_eval.tasks.TaskManager(include_path=root / folder, include_defaults=False)
    manager = lm_eval.tasks.TaskManager()
    if name not in manager.task_index:
        similar = difflib.get_close_matches(name, manager.all_tasks)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "mmlu is one"
        raise TrainerError(
            Reason.BENCHMARK_UNKNOWN,
            f"lm-evaluation-harness {lm_eval_version()} has no task or group {name!r}: {hint}",
        )
    return manager


def task_class(shots: int | None, load: DatasetLoader) -> type[Any]:
    """lm-eval's own task, but for where its data comes from."""
    from lm_eval.api.task import ConfigurableTask

    class PreparedTask(ConfigurableTask):  # type: ignore[misc]
        def __init__(self, config: dict[str, Any]) -> None:
            settings = {key: value for key, value in config.items() if key != "class"}
            name = settings["task"]
            # Once more: a group may have changed what the task's own file says.
            require_judgeable(name, settings)
            settings["num_fewshot"] = choose_shots(name, settings.get("num_fewshot"), shots)
            super().__init__(config=settings)

        def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
            splits = (
                self.config.training_split,
                self.config.validation_split,
                self.config.test_split,
                self.fewshot_cfg.split,
            )
            options = {**(dataset_kwargs or {})}
            options.pop("trust_remote_code", None)
            needed = tuple(dict.fromkeys(split for split in splits if split))
            self.dataset = load(
                NeededDataset(str(self.DATASET_PATH), self.DATASET_NAME, needed, options)
            )

        def fewshot_context(self, doc: Any, *arguments: Any, **settings: Any) -> Any:
            # A question has the same examples whichever questions are asked with it.
            if self.config.num_fewshot:
                self.sampler.set_rnd(EXAMPLES_SEED)
            return super().fewshot_context(doc, *arguments, **settings)

    return PreparedTask


def choose_shots(name: str, of_task: int | None, wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    if of_task is not None:
        return of_task
    return MMLU_SHOTS if name.startswith("mmlu") else 0


def require_judgeable(name: str, settings: dict[str, Any], kind: Kind | None = None) -> None:
    from lm_eval.tasks._index import Kind

    if kind is Kind.PY_TASK:
        raise refused(name, "is a Python class, whose data cannot be prepared")
    if settings.get("unsafe_code"):
        raise refused(name, "runs code that the model writes")
    if settings.get("custom_dataset"):
        raise refused(name, "makes up its data as it runs, so that it cannot be prepared")
    if settings.get("doc_to_image") or settings.get("doc_to_audio"):
        raise refused(name, "asks about pictures or sound")
    output_type = settings.get("output_type", "generate_until")
    if output_type not in OUTPUT_TYPES:
        raise refused(name, f"has the output type {output_type}, which gives no score per item")


def refused(name: str, why: str) -> TrainerError:
    return TrainerError(
        Reason.BENCHMARK_UNKNOWN,
        f"task {name} {why}: name a task of multiple choice or of generated answers, such as mmlu",
    )
