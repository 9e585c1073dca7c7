"""What TuningPolicies give to the objects of a namespace. Pure, but for the store that is read.

What they allow is the API server's to say, at admission (the chart's ValidatingAdmissionPolicies).
Nothing of this is ever written into an object: it is as if its owner had said it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from tunesmith.api.objects import Kind, ObjectMeta, PodTemplate
from tunesmith.api.output import OutputStore
from tunesmith.api.tuningpolicy import TuningPolicy
from tunesmith.kube.key import Key
from tunesmith.kube.labels import QUEUE_NAME
from tunesmith.kube.parsing import readable

if TYPE_CHECKING:
    # The store keeps objects by means that the commands of kubectl tunesmith have no need of.
    from tunesmith.kube.store import Store

Object = dict[str, Any]


class Deciding(StrEnum):
    """Kinds of the cluster by which it is decided what holds where."""

    NAMESPACE = "Namespace"
    POLICY = "TuningPolicy"


NOTHING = PodTemplate()

Value = TypeVar("Value")


@dataclass(frozen=True)
class Defaults:
    """What the objects of one namespace get that do not say it themselves."""

    #: Of pods: where they run, and with which image.
    trainer: PodTemplate = NOTHING
    server: PodTemplate = NOTHING
    queue: str | None = None
    output: OutputStore | None = None
    #: Longest time that an attempt may run.
    deadline_seconds: int | None = None


NO_DEFAULTS = Defaults()


def defaults_in(store: Store, namespace: str) -> Defaults:
    """What holds in a namespace, as far as the watches told."""
    found = store.select(Deciding.POLICY, "")
    if not found:
        return NO_DEFAULTS
    raw = store.get(Deciding.NAMESPACE, "", namespace) or {"metadata": {}}
    policies = readable(TuningPolicy.from_object, found)
    return combined(policies, raw["metadata"].get("labels", {}))


def decided_anew(store: Store, raw: Object) -> Iterator[Key]:
    """All that may be given something else now: by another policy, or by other policies."""
    match raw["kind"]:
        case Deciding.POLICY:
            yield from (key for kind in Kind for key in store.all_keys(kind))
        case Deciding.NAMESPACE:
            yield from (key for kind in Kind for key in store.keys(raw["metadata"]["name"], kind))


def combined(policies: Iterable[TuningPolicy], labels: Mapping[str, str]) -> Defaults:
    """Of the policies that hold where these labels are: the first by name that gives something."""
    ordered = sorted(policies, key=lambda each: each.metadata.name)
    specs = [each.spec for each in ordered if holds_in(each, labels)]
    given = [each.defaults for each in specs]
    where = {
        "node_selector": _first(each.node_selector for each in given) or {},
        "tolerations": _first(each.tolerations for each in given) or [],
    }
    hours = [each.allowed.max_hours for each in specs if each.allowed.max_hours is not None]
    return Defaults(
        trainer=PodTemplate(**where, image=_first(each.trainer_image for each in given)),
        server=PodTemplate(**where, image=_first(each.serving_image for each in given)),
        queue=_first(each.queue for each in given),
        output=_first(each.output for each in given),
        deadline_seconds=_seconds(min(hours)) if hours else None,
    )


def holds_in(policy: TuningPolicy, labels: Mapping[str, str]) -> bool:
    """Whether a policy holds in a namespace with these labels."""
    chosen = policy.spec.namespaces
    return chosen is None or chosen.match_labels.items() <= labels.items()


def placed(own: PodTemplate, given: PodTemplate) -> PodTemplate:
    """A pod template with what a policy gives where it says nothing itself."""
    return own.model_copy(
        update={
            "node_selector": own.node_selector or given.node_selector,
            "tolerations": own.tolerations or given.tolerations,
            "image": own.image or given.image,
        }
    )


def queued(metadata: ObjectMeta, queue: str | None) -> ObjectMeta:
    """The metadata with the queue, unless its owner chose one."""
    if queue is None or QUEUE_NAME in metadata.labels:
        return metadata
    return metadata.model_copy(update={"labels": {**metadata.labels, QUEUE_NAME: queue}})


def _seconds(hours: float) -> int:
    return max(1, int(timedelta(hours=hours).total_seconds()))


def _first(values: Iterable[Value]) -> Value | None:
    return next((each for each in values if each), None)
