"""Which pod's log is meant."""

from __future__ import annotations

from typing import Any

from tunesmith.commandline.logs import Stage, current_pod


def pod(
    name: str, made: int, stage: str | None = None, job: str | None = None, rank: int | None = None
) -> dict[str, Any]:
    labels = {"tunesmith.dev/stage": stage, "batch.kubernetes.io/job-name": job}
    ranks = {} if rank is None else {"batch.kubernetes.io/job-completion-index": str(rank)}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": f"2026-01-01T00:00:{made:02d}Z",
            "labels": {key: value for key, value in labels.items() if value},
            "annotations": ranks,
        }
    }


def chosen(*pods: dict[str, Any], stage: Stage | None = None) -> str | None:
    found = current_pod(pods, stage)
    return str(found["metadata"]["name"]) if found else None


PREPARES = pod("prepares", 1, "prepare")
TRAINS = pod("trains", 5, "train")
JUDGES = pod("judges", 9)


def test_the_newest_pod_does_the_work_of_the_current_stage() -> None:
    assert chosen(TRAINS, PREPARES) == "trains"
    assert chosen(JUDGES, TRAINS, PREPARES) == "judges"


def test_an_earlier_stage_can_be_asked_for() -> None:
    assert chosen(JUDGES, TRAINS, PREPARES, stage=Stage.PREPARE) == "prepares"
    assert chosen(JUDGES, TRAINS, PREPARES, stage=Stage.EVALUATE) == "judges"
    assert chosen(PREPARES, stage=Stage.TRAIN) is None


def test_of_pods_that_work_together_the_first_speaks_though_another_is_younger() -> None:
    group = [pod(f"rank-{rank}", 5 + rank, "train", "attempt-2", rank) for rank in range(3)]
    before = pod("before", 2, "train", "attempt-1", 0)
    assert chosen(before, *group) == "rank-0"


def test_of_a_replaced_pod_the_replacement_speaks() -> None:
    lost, replacement = pod("lost", 2, "train", "a"), pod("replacement", 8, "train", "a")
    assert chosen(replacement, lost) == "replacement"


def test_without_pods_there_is_none() -> None:
    assert chosen() is None
