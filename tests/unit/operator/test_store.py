"""What the watches told: newer replaces older, what no plan reads is no news, ghosts go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable

from tunesmith.api.objects import Kind
from tunesmith.kube.cluster import Page
from tunesmith.kube.key import Key, concerned
from tunesmith.kube.labels import PLAN, owner_labels
from tunesmith.kube.policies import Deciding
from tunesmith.kube.reader import KEPT, compare_with_lists
from tunesmith.kube.store import Store

from tests.unit.operator.given import Raw

OWNER = Key("FineTuneJob", "team", "triage")


def job_object(version: int, name: str = "triage-train-1", **more: Raw) -> Raw:
    labels = owner_labels(Kind.FINE_TUNE_JOB, "triage")
    metadata = {"name": name, "namespace": "team", "resourceVersion": str(version)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "labels": labels},
    } | more


def own_object(version: int, name: str = "triage", **more: Raw) -> Raw:
    metadata = {"name": name, "namespace": "team", "resourceVersion": str(version)}
    return {"kind": "FineTuneJob", "metadata": metadata, **more}


def children(store: Store) -> list[str]:
    labels = owner_labels(Kind.FINE_TUNE_JOB, "triage")
    return [each["metadata"]["name"] for each in store.select("Job", "team", labels)]


def test_a_newer_version_replaces_an_older_one_and_never_the_other_way_round() -> None:
    store = Store()
    assert store.put(own_object(2, spec={"suspend": True}))
    assert not store.put(own_object(1, spec={"suspend": False}))
    assert not store.put(own_object(2, spec={"suspend": False}))
    found = store.get("FineTuneJob", "team", "triage")
    assert found == own_object(2, spec={"suspend": True})


def test_a_version_in_which_nothing_changed_is_no_news_but_is_kept() -> None:
    store = Store()
    store.put(own_object(2, status={"state": "Training"}))
    assert not store.put(own_object(3, status={"state": "Training"}))
    found = store.get("FineTuneJob", "team", "triage")
    assert found
    assert found["metadata"]["resourceVersion"] == "3"


def test_what_no_plan_reads_of_a_job_is_no_news() -> None:
    store = Store()
    assert store.put(job_object(1, status={"active": 1, "ready": 0}))
    assert not store.put(job_object(2, status={"active": 1, "ready": 1}))
    assert store.put(job_object(3, status={"conditions": [{"type": "Complete", "status": "True"}]}))


def test_the_plan_of_a_pod_is_not_kept() -> None:
    store = Store()
    pod = job_object(1) | {"kind": "Pod"}
    pod["metadata"]["annotations"] = {PLAN: json.dumps({"long": "x" * 4000}), "kept": "yes"}
    store.put(pod)
    found = store.get("Pod", "team", "triage-train-1")
    assert found
    assert found["metadata"]["annotations"] == {"kept": "yes"}


def test_children_are_found_by_their_owner() -> None:
    store = Store()
    store.put(job_object(1))
    store.put(job_object(2, "triage-train-2"))
    assert children(store) == ["triage-train-1", "triage-train-2"]
    assert store.remove(job_object(3))
    assert children(store) == ["triage-train-2"]
    assert store.select("Job", "other", owner_labels(Kind.FINE_TUNE_JOB, "triage")) == []


def test_a_child_whose_label_was_changed_is_no_child_any_more() -> None:
    store = Store()
    store.put(job_object(1))
    moved = job_object(2)
    moved["metadata"]["labels"] = owner_labels(Kind.FINE_TUNE_JOB, "other")
    store.put(moved)
    assert children(store) == []
    store.remove(job_object(3))
    store.put(job_object(4))
    assert children(store) == ["triage-train-1"]


def test_a_deletion_that_is_told_late_does_not_take_the_namesake() -> None:
    store = Store()
    store.put(own_object(5))
    assert not store.remove(own_object(4))
    assert store.get("FineTuneJob", "team", "triage")


class Lists:
    """Plays the API server's lists: the real one cannot be made to answer late."""

    def __init__(self, *listed: Raw, version: int, meanwhile: Raw | None = None) -> None:
        self._listed = listed
        self._version = version
        self.meanwhile = meanwhile
        self.store = Store()

    async def pages(self, kind: str, namespace: str | None, _: Raw) -> AsyncIterator[Page]:
        assert namespace is None
        if self.meanwhile and self.meanwhile["kind"] == kind:
            self.store.remove(self.meanwhile)
        yield Page([each for each in self._listed if each["kind"] == kind], self._version)

    async def compare(self) -> list[Key]:
        return await compared(self, KEPT, ())


async def compared(lists: Lists, kinds: Iterable[str], namespaces: Iterable[str]) -> list[Key]:
    found = compare_with_lists(lists, lists.store, kinds, namespaces)  # type: ignore[arg-type]
    return list(dict.fromkeys([key async for key in found]))


def policy_object(version: int, **more: Raw) -> Raw:
    metadata = {"name": "tenants", "resourceVersion": str(version)}
    return {"kind": "TuningPolicy", "metadata": metadata, **more}


async def test_what_is_of_the_cluster_is_kept_beside_what_is_of_namespaces() -> None:
    lists = Lists(policy_object(8), version=9)
    await compared(lists, Deciding, ("team",))
    assert lists.store.select("TuningPolicy", "") == [policy_object(8)]
    assert lists.store.remove(policy_object(12))
    assert lists.store.select("TuningPolicy", "") == []


async def test_a_policy_that_no_watch_told_of_concerns_all_that_it_may_decide_about() -> None:
    lists = Lists(policy_object(8), version=9)
    lists.store.put(own_object(7))
    assert await compared(lists, Deciding, ("team",)) == [OWNER]


def test_of_a_namespace_only_its_metadata_is_news() -> None:
    def namespace(version: int, labels: Raw, phase: str) -> Raw:
        metadata = {"name": "team", "labels": labels, "resourceVersion": str(version)}
        return {"kind": "Namespace", "metadata": metadata, "status": {"phase": phase}}

    store = Store()
    store.put(namespace(1, {}, "Active"))
    assert not store.put(namespace(2, {}, "Terminating"))
    assert store.put(namespace(3, {"team": "support"}, "Terminating"))


async def test_what_no_watch_told_of_is_found_by_comparing() -> None:
    lists = Lists(own_object(7), job_object(8), version=9)
    lists.store.put(own_object(7))
    lists.store.put(job_object(3, "triage-train-0"))
    assert await lists.compare() == [OWNER]
    assert children(lists.store) == ["triage-train-1"]
    assert await lists.compare() == []


async def test_what_is_newer_than_the_list_stays() -> None:
    lists = Lists(version=9)
    lists.store.put(job_object(12))
    assert await lists.compare() == []
    assert children(lists.store) == ["triage-train-1"]


async def test_what_goes_while_it_is_listed_does_not_come_back() -> None:
    lists = Lists(job_object(8), version=9, meanwhile=job_object(10))
    await lists.compare()
    assert children(lists.store) == []


async def test_an_object_of_ours_that_is_gone_unseen_is_looked_at() -> None:
    lists = Lists(version=9)
    lists.store.put(own_object(3))
    assert await lists.compare() == [OWNER]
    assert set(KEPT) >= {"FineTuneJob", "EvalRun", "AdapterDeployment", "Job", "Pod"}


def test_a_label_without_a_name_makes_nobody_an_owner() -> None:
    """A look at an object without a name would list them all."""
    labels = {"tunesmith.dev/finetunejob": "", "tunesmith.dev/evalrun": "run"}
    metadata = {"name": "triage", "namespace": "team", "labels": labels}
    found = list(concerned({"kind": "FineTuneJob", "metadata": metadata}))
    assert found == [Key("FineTuneJob", "team", "triage"), Key("EvalRun", "team", "run")]


def test_a_child_whose_label_was_taken_away_concerns_its_owner_still() -> None:
    owner = {"kind": "FineTuneJob", "name": "triage", "uid": "uid-triage"}
    metadata = {"name": "run", "namespace": "team", "ownerReferences": [owner]}
    found = list(concerned({"kind": "EvalRun", "metadata": metadata}))
    assert found == [Key("EvalRun", "team", "run"), Key("FineTuneJob", "team", "triage")]


def test_what_is_under_way_is_counted_until_it_succeeds_fails_or_goes() -> None:
    def says(status: str) -> Raw:
        condition = {
            "type": "Succeeded",
            "status": status,
            "reason": "Said",
            "message": "",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        return {"conditions": [condition]}

    store, counted = Store(), []
    for raw in (
        own_object(1, "one"),
        own_object(2, "two"),
        job_object(3),
        own_object(4, "one", status=says("Unknown")),
        own_object(5, "one", status=says("True")),
        own_object(6, "three", status={"conditions": "what a hand wrote"}),
        own_object(7, "two", status=says("False")),
    ):
        store.put(raw)
        counted.append(store.under_way.total())
    assert counted == [1, 2, 2, 2, 1, 2, 1]
    store.put(own_object(8, "four", spec={"suspend": True}))
    assert store.under_way.total() == 1, "a suspended one is not looked at again"
    store.remove(own_object(9, "three"))
    assert store.under_way == {}, "a namespace without any has no share"
