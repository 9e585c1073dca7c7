"""One run of each side: so many objects applied at once, until all are done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from devcluster.layout import own_layout
from tunesmith.finetunejob.decision import JobStage

from examples.demo.kubectl import Kubectl, Object
from tests.bench.operator_audit import JOB_CONTROLLER, OPERATOR, AuditLog, Request
from tests.bench.operator_process import OperatorProcess
from tests.bench.operator_stage import (
    Milestones,
    apply_all,
    bare_job,
    finetunejob,
    namespace,
    remove,
)

AUDIT = AuditLog(own_layout().audit_log)
LONGEST_SECONDS = 3000
#: What the first Job of a FineTuneJob is called after it, and the one that trains.
FIRST, SECOND = (f"-{stage}-1" for stage in (JobStage.PREPARE, JobStage.TRAIN))


def say(text: str) -> None:
    print(f"    {time.strftime('%H:%M:%S')} {text}", flush=True)


def job_name(number: int) -> str:
    return f"job-{number:05}"


@dataclass(frozen=True)
class FloorRun:
    """Bare batch Jobs."""

    #: From the start of `kubectl apply` until all are complete.
    seconds: float
    #: Of each Job: applied → its pod was created.
    reactions: list[float]


@dataclass(frozen=True)
class OurRun:
    """FineTuneJobs."""

    count: int
    #: From the start of `kubectl apply` until all have trained.
    seconds: float
    #: Until all are judged, too.
    judged_seconds: float
    #: Of each: applied → its first Job was created.
    reactions: list[float]
    #: The three parts of that: the API server takes the job in, the operator hears of it and asks
    #: for its first Job, and the API server makes that.
    taken_in: list[float]
    decided: list[float]
    made: list[float]
    #: A preparation's Job is complete → the training's Job was created.
    lags: list[float]
    #: What the operator asked for, without its lease; and what it wrote until each had trained.
    requests: list[Request]
    until_trained: Counter[str]
    cpu_seconds: float
    resident_before: int
    peak_resident: int
    resident: int


def run_floor(
    name: str, specimen: Object, count: int, training: float, stages: Sequence[str]
) -> FloorRun:
    """Of every stage so many bare Jobs, all at once."""
    kubectl = namespace(name)
    start = AUDIT.position()
    jobs = [
        bare_job(specimen, f"{job_name(number)}-{stage or 'eval'}", stage, training)
        for number in range(count)
        for stage in stages
    ]
    watch = Milestones(kubectl, "jobs", ("Complete",))
    began = time.time()
    apply_all(kubectl, jobs)
    say(f"{len(jobs):,} bare Jobs are applied after {time.time() - began:.1f} s")
    watch.wait("Complete", len(jobs), LONGEST_SECONDS, say)
    watch.close()
    requests = AUDIT.requests(start, f'"namespace":"{kubectl.namespace}"')
    applied = first(requests, lambda each: each.by_kubectl and each.resource == "jobs", received)
    pods = first(requests, lambda each: each.what == "create pods", answered)
    seconds = max(watch.reached["Complete"].values()) - began
    say(f"all bare Jobs are complete after {seconds:.1f} s")
    remove(kubectl)
    return FloorRun(seconds, between(applied, pods))


def run_ours(
    kubectl: Kubectl, operator: OperatorProcess, count: int, training: float, preparation: float
) -> OurRun:
    start = AUDIT.position()
    operator.forget_peak()
    cpu, before = operator.cpu_seconds, operator.resident
    names = [job_name(number) for number in range(count)]
    watch = Milestones(kubectl, "finetunejobs", ("Succeeded", "Ready"))
    began = time.time()
    apply_all(kubectl, [finetunejob(each, training, preparation) for each in names])
    say(f"{count:,} FineTuneJobs are applied after {time.time() - began:.1f} s")
    watch.wait("Succeeded", count, LONGEST_SECONDS, say)
    say(f"all FineTuneJobs have trained after {time.time() - began:.1f} s")
    watch.wait("Ready", count, LONGEST_SECONDS, say)
    say(f"all FineTuneJobs are judged after {time.time() - began:.1f} s")
    watch.close()
    cpu = operator.cpu_seconds - cpu
    requests = AUDIT.requests(start, f'"namespace":"{kubectl.namespace}"', OPERATOR)
    # Its lease is no job's.
    by_operator = [each for each in requests if each.user == OPERATOR and each.resource != "leases"]
    applied = first(
        requests, lambda each: each.by_kubectl and each.resource == "finetunejobs", received
    )
    jobs = first(by_operator, lambda each: each.what == "create jobs", answered)
    prepared = _of_preparation(jobs, names)
    stored = first(
        requests, lambda each: each.by_kubectl and each.resource == "finetunejobs", answered
    )
    asked = _of_preparation(
        first(by_operator, lambda each: each.what == "create jobs", received), names
    )
    return OurRun(
        count=count,
        seconds=max(watch.reached["Succeeded"].values()) - began,
        judged_seconds=max(watch.reached["Ready"].values()) - began,
        reactions=between(applied, prepared),
        taken_in=between(applied, stored),
        decided=between(stored, asked),
        made=between(asked, prepared),
        lags=_lags(requests, names),
        requests=by_operator,
        until_trained=_until_trained(by_operator, watch.reached["Succeeded"]),
        cpu_seconds=cpu,
        resident_before=before,
        peak_resident=operator.peak_resident,
        resident=operator.resident,
    )


def _of_preparation(jobs: dict[str, float], names: list[str]) -> dict[str, float]:
    """By the name of the FineTuneJob, what is told of its first Job."""
    return {name: jobs[job] for name in names if (job := f"{name}{FIRST}") in jobs}


def _lags(requests: list[Request], names: list[str]) -> list[float]:
    """The Job controller says that the preparation is complete → the operator makes the next Job.

    Complete is what it says last.
    """
    made = first(requests, lambda each: each.what == "create jobs", received)
    said: dict[str, float] = {}
    for each in requests:
        if each.user == JOB_CONTROLLER and each.resource == "jobs/status":
            owner = each.name.removesuffix(FIRST)
            if each.answered <= made.get(f"{owner}{SECOND}", 0):
                said[owner] = each.answered
    return [made[f"{name}{SECOND}"] - said[name] for name in names if name in said]


def _until_trained(by_operator: list[Request], trained: dict[str, float]) -> Counter[str]:
    """The writes about each job up to the one that says that it has trained.

    That one is the last write of its status before it was seen.
    """
    last: dict[str, float] = {}
    for each in by_operator:
        if each.resource == "finetunejobs/status" and each.received <= trained.get(each.name, 0):
            last[each.name] = max(last.get(each.name, 0), each.received)
    counted: Counter[str] = Counter()
    for each in by_operator:
        # Children, EvalRuns and Events are named after the job: job-00001-train-1.
        owner = each.name[: len(job_name(0))]
        if each.writes and each.received <= last.get(owner, 0):
            counted[each.what] += 1
    return counted


def received(request: Request) -> float:
    return request.received


def answered(request: Request) -> float:
    return request.answered


def first(
    requests: Iterable[Request],
    chosen: Callable[[Request], bool],
    moment: Callable[[Request], float],
) -> dict[str, float]:
    """By name, when the first of the chosen requests was received or answered."""
    found: dict[str, float] = {}
    for each in requests:
        if chosen(each) and each.name not in found:
            found[each.name] = moment(each)
    return found


def between(one: dict[str, float], other: dict[str, float]) -> list[float]:
    """From one moment to another, of those that have both."""
    return [other[name] - one[name] for name in one if name in other]
