"""Every metric that somebody tells, with its labels, taken from whoever tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import EvaluationProgress
from tunesmith.api.job_status import Progress
from tunesmith.api.schema import ApiModel
from tunesmith.api.serving_contract import AdapterReport, AdapterState, ReplicaReport, Traffic
from tunesmith.api.trainer_contract import ProgressReport
from tunesmith.kube.store import Store
from tunesmith.kube.workqueue import WorkQueue
from tunesmith.metrics import activity
from tunesmith.metrics.census import Census
from tunesmith.metrics.operation import operation
from tunesmith.sidecar.metrics import exposition as sidecars_exposition
from tunesmith_trainer.progress import prometheus_text

from examples.demo.chain import ROOT
from tests.unit.operator.metrics_told import HeldLease, nothing

VLLM = ROOT.joinpath("build", "venvs", "ml", "lib")
#: What a query names that a metric may be called.
NAME = re.compile(r"\b(?:tunesmith_|process_|vllm:)[a-z0-9_]+")
#: What the format adds to a histogram's or a counter's name.
ENDINGS = ("_bucket", "_sum", "_count")


Model = TypeVar("Model", bound=ApiModel)


@dataclass(frozen=True, order=True)
class Told:
    """A metric as the documentation has it."""

    name: str
    type: str
    labels: str
    text: str

    def row(self) -> str:
        return f"| `{self.name}` | {self.type} | {self.labels} | {self.text} |"


def used(query: str) -> set[str]:
    """The metrics that a query names."""
    return {_whole(each) for each in NAME.findall(query)}


def _whole(name: str) -> str:
    return next((name.removesuffix(each) for each in ENDINGS if name.endswith(each)), name)


def of_operator() -> list[Told]:
    counted = [each for each in vars(activity).values() if isinstance(each, MetricWrapperBase)]
    first = [_told(next(iter(each.describe())), labels=each._labelnames) for each in counted]
    now = [*Census(Store()).collect(), *operation(WorkQueue(nothing, 1), HeldLease())]
    rest = [_told(each, labels=each._labelnames) for each in now]
    ours = [*first, *rest]
    return sorted(ours + _of_process({each.name for each in ours}))


def _of_process(ours: set[str]) -> list[Told]:
    """What the client library tells of the process, and the version."""
    found = [_told(each, labels=each.samples[0].labels) for each in _alone()]
    return [each for each in found if each.name not in ours]


def _alone() -> Iterator[Metric]:
    return (each for each in activity.REGISTRY.collect() if len(each.samples) == 1)


def of_trainer() -> list[Told]:
    report = ProgressReport(
        training=_numbers(Progress),
        evaluation=_numbers(EvaluationProgress),
        dataset=_numbers(DatasetReceipt),
    )
    return sorted(_parsed(prometheus_text(report)))


def of_sidecar() -> list[Told]:
    adapter = AdapterReport(model="a@1", digest="d", state=AdapterState.READY, seconds=1.0)
    report = ReplicaReport(desired="d", adapters=[adapter], traffic={"a@1": Traffic()})
    return sorted(_parsed(sidecars_exposition(report)))


def of_vllm() -> set[str]:
    """The names in the installed vLLM's own source, as it does not run without a model."""
    (source,) = VLLM.glob("python3*/site-packages/vllm/v1/metrics/loggers.py")
    return set(re.findall(r'name="(vllm:[a-z0-9_]+)"', source.read_text()))


def _numbers(model: type[Model]) -> Model:
    """All its numbers, and nothing else."""
    kinds = (int, float, int | None, float | None)
    named: dict[str, Any] = {
        name: 1 for name, each in model.model_fields.items() if each.annotation in kinds
    }
    return cast(Model, model.model_construct(**named))


def _parsed(text: str) -> Iterator[Told]:
    for each in text_string_to_metric_families(text):
        yield _told(each, labels=each.samples[0].labels)


def _told(metric: Metric, labels: Iterable[str]) -> Told:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    named = ", ".join(f"`{each}`" for each in labels)
    return Told(name, metric.type, named, metric.documentation)
