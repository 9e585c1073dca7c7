"""``plan``: what would come of a file: the admission verdict and the memory plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import yaml
from pydantic import ValidationError

from tunesmith.api import API_VERSION
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.memory import MemoryPlan
from tunesmith.commandline.connection import ApiError, Connection, Object, Place
from tunesmith.commandline.layout import facts, gib
from tunesmith.commandline.memory_question import Fit, fit
from tunesmith.commandline.outcome import Refusal, Unreachable
from tunesmith.finetunejob.guidance import warnings

KINDS: dict[str, Callable[[Object], FineTuneJob | EvalRun | AdapterDeployment]] = {
    "FineTuneJob": FineTuneJob.from_object,
    "EvalRun": EvalRun.from_object,
    "AdapterDeployment": AdapterDeployment.from_object,
}


class Verdict(StrEnum):
    """What admission says, or what is known without asking it."""

    ADMITTED = "Admitted"
    REFUSED = "Refused"
    #: Fields and types are right; the rules were not asked.
    NOT_ASKED = "NotAsked"


@dataclass(frozen=True)
class Admission:
    verdict: Verdict
    #: Why it is refused, a sentence each; or why nobody was asked.
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """What would come of one object."""

    kind: str
    name: str
    admission: Admission
    #: Of a FineTuneJob that can be read.
    fit: Fit | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return self.admission.verdict is not Verdict.REFUSED and not (
            self.fit and self.fit.does_not_fit
        )

    def to_json(self) -> Object:
        told: Object = {
            "kind": self.kind,
            "name": self.name,
            "admission": {
                "verdict": str(self.admission.verdict),
                "because": list(self.admission.because),
            },
        }
        if self.fit:
            told["memory"] = {
                "plan": self.fit.plan.to_json() if self.fit.plan else None,
                "doesNotFit": self.fit.does_not_fit,
                "note": self.fit.note,
            }
            told["warnings"] = list(self.warnings)
        return told


def documents(text: str) -> list[Object]:
    """Our objects in a file. Raises Refusal where it is no YAML or holds none."""
    try:
        found = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        raise Refusal(f"the file is no YAML: {error}") from error
    ours = [each for each in found if isinstance(each, dict) and each.get("kind") in KINDS]
    if not ours:
        raise Refusal(f"the file holds no {', '.join(KINDS)}")
    for each in ours:
        if not isinstance((each.get("metadata") or {}).get("name"), str):
            raise Refusal(f"a {each['kind']} of the file has no metadata.name")
    return ours


def planned(
    raw: Object, admission: Admission, model_shape: str | None, gpu_memory: str | None
) -> Planned:
    """What would come of an object, given what admission says."""
    kind, name = raw["kind"], raw["metadata"]["name"]
    try:
        read = KINDS[kind](_with_metadata(raw))
    except ValidationError:
        return Planned(kind, name, admission)
    if not isinstance(read, FineTuneJob):
        return Planned(kind, name, admission)
    told = tuple(warnings(read.spec, None, None))
    return Planned(kind, name, admission, fit(read.spec, model_shape, gpu_memory), told)


def admission(place: Place | None) -> Callable[[Object], Admission]:
    """Who says of an object whether it would be admitted: the cluster, where there is one."""
    if place is None:
        return partial(checked, why_not_asked="no cluster was to be asked")
    try:
        connection = place.connect()
    except Unreachable as error:
        return partial(checked, why_not_asked=error.message)
    return partial(asked, connection)


def asked(connection: Connection, raw: Object) -> Admission:
    """What the API server says of an object, by a dry run; what is known where it is silent."""
    try:
        connection.try_to_apply(raw)
    except ApiError as error:
        return Admission(Verdict.REFUSED, error.causes)
    except Unreachable as error:
        return checked(raw, why_not_asked=error.message)
    return Admission(Verdict.ADMITTED)


def checked(raw: Object, why_not_asked: str) -> Admission:
    """What is known without a cluster: whether fields and types are right, not what rules say."""
    if mistakes := tuple(_mistakes(raw)):
        return Admission(Verdict.REFUSED, mistakes)
    return Admission(Verdict.NOT_ASKED, (why_not_asked,))


def _mistakes(raw: Object) -> Iterator[str]:
    if raw.get("apiVersion") != API_VERSION:
        yield f"apiVersion: must be {API_VERSION}, not {raw.get('apiVersion')!r}"
    try:
        read = KINDS[raw["kind"]](_with_metadata(raw))
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            yield f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
        return
    known = read.spec.model_dump(mode="json", by_alias=True)
    yield from (f"spec.{each}: there is no such field" for each in unknown(raw["spec"], known))


def unknown(given: Any, known: Any, path: str = "") -> Iterator[str]:
    """Fields that the model passed over: misspelt ones. The API server refuses them."""
    match given, known:
        case dict(), dict():
            for key, value in given.items():
                if key not in known:
                    yield f"{path}{key}"
                else:
                    yield from unknown(value, known[key], f"{path}{key}.")
        case list(), list():
            for number, (one, other) in enumerate(zip(given, known, strict=False)):
                yield from unknown(one, other, f"{path}{number}.")


def _with_metadata(raw: Object) -> Object:
    """As if the API server had given it what it gives to each object."""
    return {**raw, "metadata": {"namespace": "", "uid": "", **raw["metadata"]}}


def lines(found: Iterable[Planned]) -> Iterator[str]:
    """For people."""
    for number, each in enumerate(found):
        if number:
            yield ""
        yield f"{each.kind} {each.name}"
        yield from facts(_facts(each))


def _facts(found: Planned) -> Iterator[tuple[str, str]]:
    admission = found.admission
    match admission.verdict:
        case Verdict.ADMITTED:
            yield "admission", "Admitted by the API server (dry run: nothing was created)"
        case Verdict.REFUSED:
            for each in admission.because:
                yield "admission", f"Refused: {each}"
        case Verdict.NOT_ASKED:
            yield (
                "admission",
                (
                    f"NotAsked: {admission.because[0]}. Fields and types are right; the rules of "
                    "the CRD and of the platform were not asked"
                ),
            )
    for each in found.warnings:
        yield "warning", each
    if fit_ := found.fit:
        if fit_.does_not_fit:
            yield "memory", f"DoesNotFit: {fit_.does_not_fit}"
        elif fit_.plan:
            yield from plan_facts(fit_.plan)
        answered = fit_.plan or fit_.does_not_fit
        yield "planned" if answered else "memory", fit_.note


def plan_facts(plan: MemoryPlan) -> Iterator[tuple[str, str]]:
    """A memory plan for people; status shows it, too."""
    together = f", {plan.processes} processes with {plan.parallelism}" if plan.parallelism else ""
    batch = f"micro-batch {plan.micro_batch_size} x accumulation {plan.gradient_accumulation}"
    yield (
        "plan",
        (
            f"{plan.method}, {batch}, {plan.optimizer}, activation checkpointing "
            f"{plan.activation_checkpointing}{together}"
        ),
    )
    if plan.predicted_peak_bytes is not None:
        of = f" of {gib(plan.gpu_memory_bytes)} per GPU" if plan.gpu_memory_bytes else ""
        yield "peak", f"{gib(plan.predicted_peak_bytes)}{of}, predicted"
    if plan.predicted_tokens_per_second is not None:
        yield "speed", f"{plan.predicted_tokens_per_second:,.0f} tokens/s, predicted"
