"""The operator under many jobs at once, beside bare batch Jobs: `make bench-operator`.

On the development cluster with simulated GPU nodes, and with the operator as a real pod. First, so
many bare batch Jobs of the very pod template that the operator makes, applied by one `kubectl
apply`, with the operator stopped: the floor. Then as many FineTuneJobs, applied alike. A training
takes ten minutes, and few are shorter that are worth a GPU; with `--training 60` the ratio says how
busy the machine is. A preparation takes a second; with `--preparation 90` no job goes on to its
training while others are still applied. With `--alone` the operator goes before all else on the
machine, since in most clusters it shares no node with the API server. Then more jobs, until there
are 5,000 finished ones: what they cost in memory, when nothing happens, and after a restart.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

from tunesmith.finetunejob.decision import JobStage

from tests.bench.operator_audit import counts, percentile
from tests.bench.operator_finished import finished_objects
from tests.bench.operator_process import leading_operator, start_operator, stop_operator
from tests.bench.operator_runs import FloorRun, OurRun, run_floor, run_ours
from tests.bench.operator_stage import namespace, remove, simulate, specimen_of_training
from tests.bench.results import Figure, tell

TRAINING_SECONDS = 600.0
MEGABYTE = 1e6


def main() -> None:
    chosen = arguments()
    figures: list[Figure] = []
    holds = False
    try:
        for part in parts(chosen):
            figures += part
    finally:
        # What was measured is told, even if the rest was interrupted.
        holds = tell("operator", figures)
    if not holds:
        raise SystemExit("a bound is not kept")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-operator")
    parser.add_argument("--jobs", type=numbers, default=[1000], help="for example 100,1000")
    parser.add_argument("--objects", type=int, default=5000, help="0 leaves this part out")
    parser.add_argument("--training", type=float, default=TRAINING_SECONDS, help="seconds")
    parser.add_argument("--preparation", type=float, default=1, help="seconds")
    parser.add_argument(
        "--every-pod", action="store_true", help="a second floor: as many bare Jobs as we run pods"
    )
    parser.add_argument(
        "--alone", action="store_true", help="the operator as if nobody else had its node"
    )
    return parser.parse_args()


def parts(chosen: argparse.Namespace) -> Iterator[list[Figure]]:
    """The figures of one part of the benchmark after the other."""
    simulate(max(chosen.jobs))
    leading_operator()
    small = namespace("bench-specimen")
    specimen = specimen_of_training(small)
    remove(small)
    for count in chosen.jobs:
        # A floor without us: the operator looks at every pod of the cluster.
        stop_operator()
        floor = run_floor("bench-floor", specimen, count, chosen.training, [JobStage.TRAIN])
        if chosen.every_pod:
            every = run_floor("bench-every-pod", specimen, count, chosen.training, EVERY)
            name = f"{count:,} jobs: floor, as many bare Jobs as we run pods"
            yield [Figure(name, every.seconds, "s")]
        operator = start_operator()
        if chosen.alone:
            operator.go_first()
        mine = namespace(f"bench-{count}")
        ours = run_ours(mine, operator, count, chosen.training, chosen.preparation)
        yield compared(floor, ours)
        if count == chosen.jobs[-1] and chosen.objects > count:
            yield finished_objects(mine, operator, count, chosen.objects)
        else:
            remove(mine)


#: Of an evaluation's pods, a label says nothing.
EVERY = [JobStage.PREPARE, JobStage.TRAIN, ""]


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def compared(floor: FloorRun, ours: OurRun) -> list[Figure]:
    count = ours.count
    writes = counts([each for each in ours.requests if each.writes])
    reads = counts([each for each in ours.requests if not each.writes])
    pod, first_job = percentile(floor.reactions, 99), percentile(ours.reactions, 99)
    figures = [
        Figure("all trained", ours.seconds, "s"),
        Figure("all judged", ours.judged_seconds, "s"),
        Figure("floor, as many bare Jobs", floor.seconds, "s"),
        Figure("all trained, over the floor", ours.seconds / floor.seconds, "x", "<= 1.3"),
        Figure("apply to first Job, p50", percentile(ours.reactions, 50), "s"),
        Figure("apply to first Job, p99", first_job, "s"),
        *parts_of(ours),
        Figure("floor: Job to pod, p50", percentile(floor.reactions, 50), "s"),
        Figure("floor: Job to pod, p99", pod, "s"),
        Figure("apply to first Job over Job to pod, p99", first_job / pod, "x", "<= 2"),
        Figure("event lag, p50", percentile(ours.lags, 50), "s"),
        Figure("event lag, p99", percentile(ours.lags, 99), "s"),
        *per_job("writes until trained", ours.until_trained, count, "<= 8"),
        *per_job("writes in its life", writes, count),
        *per_job("reads in its life", reads, count),
        Figure("operator's CPU time for each", 1000 * ours.cpu_seconds / count, "ms"),
        Figure("operator's memory before", ours.resident_before / MEGABYTE, "MB"),
        Figure("operator's memory, most", ours.peak_resident / MEGABYTE, "MB"),
        Figure("operator's memory afterwards", ours.resident / MEGABYTE, "MB"),
    ]
    return [
        Figure(f"{count:,} jobs: {each.name}", each.value, each.unit, each.must) for each in figures
    ]


def parts_of(ours: OurRun) -> list[Figure]:
    """Where the time from apply to the first Job goes."""
    named = (
        ("the API server takes it in", ours.taken_in),
        ("the operator hears of it and asks", ours.decided),
        ("the API server makes the Job", ours.made),
    )
    return [
        Figure(f"of that: {name}, p{share}", percentile(seconds, share), "s")
        for name, seconds in named
        for share in (50, 99)
    ]


def per_job(name: str, counted: Counter[str], count: int, must: str = "") -> list[Figure]:
    """The sum of requests for each job, and what it is made of."""
    return [
        Figure(name, counted.total() / count, "a job", must),
        *(
            Figure(f"{name}, {what}", number / count, "a job")
            for what, number in counted.most_common()
            if number >= count / 100
        ),
    ]


if __name__ == "__main__":
    main()
