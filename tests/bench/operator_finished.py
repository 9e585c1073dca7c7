"""Thousands of finished FineTuneJobs: what they cost in memory, at rest and after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable

from examples.demo.kubectl import Kubectl, KubectlError
from tests.bench.operator_audit import OPERATOR, Request, counts
from tests.bench.operator_process import SYSTEM, OperatorProcess, leading_operator
from tests.bench.operator_runs import AUDIT, FIRST, LONGEST_SECONDS, job_name, say
from tests.bench.operator_stage import Milestones, apply_all, finetunejob
from tests.bench.results import Figure

MEGABYTE = 1e6
IDLE_MINUTES = 2
#: Every object is looked at again this often, whether or not anything happened.
RESYNC_MINUTES = 10
#: An operator with nothing to do asks for little more than its lease.
QUIET_REQUESTS_A_SECOND = 5.0
PASSES = "tunesmith_reconcile_total{"


def finished_objects(
    kubectl: Kubectl, operator: OperatorProcess, there: int, wanted: int
) -> list[Figure]:
    """To those that are there come others, which train for a second only."""
    operator.forget_peak()
    watch = Milestones(kubectl, "finetunejobs", ("Ready",))
    began = time.monotonic()
    apply_all(kubectl, [finetunejob(job_name(number), 1) for number in range(there, wanted)])
    say(f"{wanted - there:,} more are applied after {time.monotonic() - began:.1f} s")
    watch.wait("Ready", wanted, LONGEST_SECONDS, say)
    watch.close()
    seconds = time.monotonic() - began
    until_quiet()
    held, peak = operator.resident, operator.peak_resident
    at_rest = idle()
    deleted, caught_up, resync = replaced(kubectl, operator, wanted)
    successor = leading_operator(not_pod=operator.pod)
    successor.require_alive()
    after, most_after = successor.resident, successor.peak_resident
    crashed = until_acted_on(kubectl, "after-crash", successor.crash)
    figures = [
        Figure("jobs a second, of a second each", (wanted - there) / seconds, "1/s"),
        Figure("operator's memory, most", peak / MEGABYTE, "MB", "<= 400"),
        Figure("operator's memory afterwards", held / MEGABYTE, "MB", "<= 400"),
        Figure("operator's memory after a restart", after / MEGABYTE, "MB", "<= 400"),
        Figure("operator's memory after a restart, most", most_after / MEGABYTE, "MB", "<= 400"),
        *resting(at_rest, len(resync)),
        Figure("pod deleted to first Job of a new job", deleted, "s", "<= 30"),
        Figure("pod deleted to every object looked at", caught_up, "s"),
        Figure("process killed to first Job of a new job", crashed, "s", "<= 30"),
        *(
            Figure(f"requests to catch up, {what}", number, "")
            for what, number in counts(resync).most_common()
        ),
    ]
    return [
        Figure(f"{wanted:,} finished: {each.name}", each.value, each.unit, each.must)
        for each in figures
    ]


def until_quiet() -> None:
    """Wait until the operator asks for nothing."""
    began = time.monotonic()
    while True:
        start, since = AUDIT.position(), time.monotonic()
        time.sleep(5)
        asked = len(by_operator(start))
        if asked / (time.monotonic() - since) <= QUIET_REQUESTS_A_SECOND:
            return
        if since - began > LONGEST_SECONDS:
            raise SystemExit(f"the operator does not rest: {asked} requests in 5 s")
        say(f"the operator is busy: {asked / 5:.0f} requests a second")


def idle() -> list[Request]:
    """What it asks for while nothing happens."""
    say(f"nothing happens for {IDLE_MINUTES} minutes")
    start = AUDIT.position()
    time.sleep(IDLE_MINUTES * 60)
    return by_operator(start)


def resting(at_rest: list[Request], of_a_resync: int) -> list[Figure]:
    """What it asked for, and the share of a minute in the look at everything that comes seldom.

    A pass over all objects that finds nothing to do is what follows a restart, too.
    """
    name = "requests a minute at rest"
    minutely, spread = len(at_rest) / IDLE_MINUTES, of_a_resync / RESYNC_MINUTES
    return [
        Figure(name, minutely + spread, "1/min", "<= 60"),
        Figure(f"{name}, share of the resync", spread, "1/min"),
        *(
            Figure(f"{name}, {what}", number / IDLE_MINUTES, "1/min")
            for what, number in counts(at_rest).most_common()
        ),
    ]


def replaced(
    kubectl: Kubectl, operator: OperatorProcess, wanted: int
) -> tuple[float, float, list[Request]]:
    """Delete the operator's pod. How long it takes until a new job is acted on, and until the next
    operator has looked at every object; and what it asks for until then."""
    start, began = AUDIT.position(), time.monotonic()
    acted = until_acted_on(
        kubectl,
        "after-restart",
        lambda: SYSTEM.run("delete", "pod", operator.pod, "--wait=false"),
    )
    successor = leading_operator(not_pod=operator.pod)
    # Each job has an EvalRun.
    while passes(successor) < 2 * wanted:
        successor.require_alive()
        time.sleep(0.5)
    caught_up = time.monotonic() - began
    say(f"the new operator has caught up after {caught_up:.0f} s")
    until_quiet()
    asked = [each for each in by_operator(start) if not each.name.startswith("after-restart")]
    return acted, caught_up, [each for each in asked if each.resource != "leases"]


def passes(operator: OperatorProcess) -> float:
    """How many passes it has made since it started, as its metrics say; none while it is silent."""
    path = f"/api/v1/namespaces/{SYSTEM.namespace}/pods/{operator.pod}:8080/proxy/metrics"
    try:
        told = SYSTEM.run("get", "--raw", path).splitlines()
    except KubectlError:
        return 0
    return sum(float(each.split()[-1]) for each in told if each.startswith(PASSES))


def until_acted_on(kubectl: Kubectl, name: str, stop: Callable[[], object]) -> float:
    """From the operator's end until a job that was applied meanwhile has its first Job."""
    start, began = AUDIT.position(), time.time()
    stop()
    apply_all(kubectl, [finetunejob(name, 1)])
    while time.time() - began < 600:
        for each in AUDIT.requests(start, f'"{name}{FIRST}"'):
            if each.what == "create jobs" and each.user == OPERATOR:
                say(f"{name}: its first Job after {each.answered - began:.1f} s")
                return each.answered - began
        time.sleep(0.5)
    raise SystemExit(f"{name} has no Job after 600 s")


def by_operator(start: int) -> list[Request]:
    return [each for each in AUDIT.requests(start, OPERATOR) if each.user == OPERATOR]
