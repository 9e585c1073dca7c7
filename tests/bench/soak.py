"""Churn for some minutes, and what grows meanwhile: `make soak`.

Every figure with "after warm-up" leaves the first third out. A slope is per hour, by least squares.
"""

from __future__ import annotations

import argparse
import time

from examples.demo.kubectl import Kubectl
from tests.bench.operator_process import OperatorProcess, leading_operator
from tests.bench.operator_runs import say
from tests.bench.operator_stage import namespace, remove, simulate
from tests.bench.results import Figure, tell
from tests.bench.soak_churn import Churn
from tests.bench.soak_samples import ObjectSample, ProcessSample, Slope, managed

MINUTES = 10.0
PROCESS_SECONDS, OBJECTS_SECONDS, ROUND_SECONDS = 1.0, 30.0, 3.0
#: The garbage collector takes a moment to delete what belonged to the deleted.
COLLECTED_SECONDS = 120.0
MEGABYTE = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args().minutes
    simulate(pods_at_once=200)
    operator = leading_operator()
    churn = Churn(namespace("soak"))
    churn.begin()
    processes, objects = watched(churn, operator, minutes)
    churn.end()
    orphans = left_behind(churn.kubectl)
    restarts = int(leading_operator().pid != operator.pid)
    figures = [
        Figure("minutes", minutes, ""),
        Figure("objects that came and went", churn.made, ""),
        Figure("restarts of the operator", restarts, "", "== 0"),
        Figure("orphans after all was deleted", orphans, "", "== 0"),
        *process_figures(processes),
        *object_figures(objects),
    ]
    remove(churn.kubectl)
    if not tell("soak", figures):
        raise SystemExit("a bound is not kept")


def watched(
    churn: Churn, operator: OperatorProcess, minutes: float
) -> tuple[list[ProcessSample], list[ObjectSample]]:
    """Round after round, with a look at the process and the objects now and then."""
    began = time.monotonic()
    processes, objects = [], []
    looks = 0
    while (passed := time.monotonic() - began) < minutes * 60:
        churn.round()
        if passed >= looks * OBJECTS_SECONDS:
            looks += 1
            objects.append(ObjectSample.take(churn.kubectl, began))
            say(told(operator, objects[-1], churn))
        processes.append(ProcessSample.take(operator, began))
        while time.monotonic() - began < min(minutes * 60, passed + ROUND_SECONDS):
            time.sleep(PROCESS_SECONDS)
            processes.append(ProcessSample.take(operator, began))
    objects.append(ObjectSample.take(churn.kubectl, began))
    return processes, objects


def told(operator: OperatorProcess, seen: ObjectSample, churn: Churn) -> str:
    return (
        f"{churn.made} made, {seen.objects} there with {seen.children} children; the operator has "
        f"{operator.resident / MEGABYTE:.0f} MB and {operator.open_files} files"
    )


def left_behind(kubectl: Kubectl) -> int:
    """What nobody owns any more and is still there."""
    deadline = time.monotonic() + COLLECTED_SECONDS
    while left := managed(kubectl):
        if time.monotonic() > deadline:
            for each in left[:10]:
                say(f"left behind: {each['kind']} {each['metadata']['name']}")
            break
        time.sleep(2)
    return len(left)


def process_figures(samples: list[ProcessSample]) -> list[Figure]:
    warm = samples[len(samples) // 3 :]
    hours = [each.hours for each in warm]
    memory = Slope.of(hours, [each.resident / MEGABYTE for each in warm])
    files = Slope.of(hours, [each.open_files for each in warm])
    half = len(warm) // 2
    return [
        Figure("memory at the start", samples[0].resident / MEGABYTE, "MB"),
        Figure("memory after warm-up", warm[0].resident / MEGABYTE, "MB"),
        Figure("memory at the end", warm[-1].resident / MEGABYTE, "MB"),
        Figure("memory, slope after warm-up", memory.an_hour, "MB/h", "<= 60"),
        Figure("memory, noise of the slope", memory.noise, "MB/h"),
        Figure("open files, most", max(each.open_files for each in samples), ""),
        Figure("open files, slope after warm-up", files.an_hour, "1/h"),
        Figure("open files, noise of the slope", files.noise, "1/h"),
        # The most of one half and of the other: single connections come and go.
        Figure(
            "open files, second half over first after warm-up",
            max(each.open_files for each in warm[half:])
            - max(each.open_files for each in warm[:half]),
            "",
            "<= 5",
        ),
        Figure("threads, most", max(each.threads for each in samples), ""),
    ]


def object_figures(samples: list[ObjectSample]) -> list[Figure]:
    warm = samples[len(samples) // 3 :]
    hours = [each.hours for each in warm]
    status = Slope.of(hours, [each.status for each in warm])
    annotations = Slope.of(hours, [each.annotations for each in warm])
    children = Slope.of(hours, [each.children / max(1, each.objects) for each in warm])
    first, last = warm[0], warm[-1]
    return [
        Figure("largest status", max(each.status for each in samples), "bytes", "<= 16384"),
        Figure("largest status, slope after warm-up", status.an_hour, "bytes/h"),
        Figure("largest status, end over warm-up", last.status / first.status, "x", "<= 1.2"),
        Figure(
            "most annotations of one object", max(each.annotations for each in samples), "bytes"
        ),
        Figure("annotations, slope after warm-up", annotations.an_hour, "bytes/h"),
        Figure(
            "annotations, end over warm-up", last.annotations / first.annotations, "x", "<= 1.2"
        ),
        Figure("Events about one object, most", max(each.events for each in samples), "", "<= 20"),
        Figure(
            "Events about one object, end over warm-up", last.events / first.events, "x", "<= 2"
        ),
        Figure("ConfigMaps, at the end", last.config_maps, ""),
        Figure(
            "ConfigMaps, more than after warm-up", last.config_maps - first.config_maps, "", "<= 5"
        ),
        Figure("largest ConfigMap", max(each.config_map for each in samples), "bytes", "<= 65536"),
        Figure("children of each object, at the end", last.children / last.objects, "", "<= 10"),
        Figure("children of each object, slope", children.an_hour, "1/h", "<= 6"),
    ]


if __name__ == "__main__":
    main()
