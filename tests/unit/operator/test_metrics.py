"""What the operator tells Prometheus of the objects there are, and of itself."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from tunesmith.api.objects import Kind
from tunesmith.kube.key import Key
from tunesmith.kube.store import Store
from tunesmith.kube.workqueue import Lane, WorkQueue
from tunesmith.metrics.results import count_results

from tests.unit.operator.metrics_told import condition, exposition, kept, nothing, told

JOB, RUN, DEPLOYMENT = Kind


async def test_objects_are_counted_by_state_as_they_are_when_prometheus_asks() -> None:
    store = Store()
    store.put(kept(JOB, "one", state="Training"))
    store.put(kept(JOB, "two", state="Training"))
    store.put(kept(JOB, "fresh"))
    store.put(kept(RUN, "run", state="Passed"))
    asked = exposition(store)
    first = await told(asked)
    count = "tunesmith_finetunejobs"
    assert first.value(count, namespace="team", state="Training") == 2
    assert first.value(count, namespace="team", state="New") == 1
    assert first.value("tunesmith_evalruns", namespace="team", state="Passed") == 1

    store.put(kept(JOB, "one", 2, state="Ready"))
    store.remove(kept(JOB, "fresh", 3))
    second = await told(asked)
    assert second.value(count, namespace="team", state="Training") == 1
    assert second.value(count, namespace="team", state="Ready") == 1
    assert second.value(count, namespace="team", state="New") is None


async def test_only_what_changed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, read = Store(), list[str]()
    for name in ("one", "two"):
        store.put(kept(JOB, name, state="Training"))
    asked = exposition(store)
    await told(asked)
    unpacked = store.get

    def noted(kind: str, namespace: str, name: str) -> Any:
        read.append(name)
        return unpacked(kind, namespace, name)

    monkeypatch.setattr(store, "get", noted)
    store.put(kept(JOB, "two", 2, state="Saving"))
    await told(asked)
    assert read == ["two"]


async def test_the_time_in_a_state_runs_until_the_state_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("tunesmith.metrics.census.time.monotonic", lambda: now)
    store, name = Store(), "tunesmith_state_seconds"
    job = {"kind": str(JOB), "namespace": "team", "name": "triage"}
    store.put(kept(JOB, "triage", state="Training"))
    asked = exposition(store)
    await told(asked)
    now = 160.0
    store.put(kept(JOB, "triage", 2, state="Training", progress={"percent": 50}))
    assert (await told(asked)).value(name, **job, state="Training") == 60
    store.put(kept(JOB, "triage", 3, state="Saving"))
    now = 170.0
    assert (await told(asked)).value(name, **job, state="Saving") == 0
    store.put(kept(JOB, "triage", 4, state="Ready"))
    assert (await told(asked)).labels(name) == []


async def test_an_object_that_waits_for_somebody_is_named_with_its_reason() -> None:
    store = Store()
    stalled = condition("Stalled", "True", "SecretNotFound")
    store.put(kept(JOB, "waits", state="Waiting", conditions=[stalled]))
    store.put(kept(JOB, "is-over", state="Failed", conditions=[stalled]))
    store.put(kept(JOB, "goes", state="Training", conditions=[stalled | {"status": "False"}]))
    (only,) = (await told(store)).labels("tunesmith_stalled")
    assert only == {
        "kind": "FineTuneJob", "namespace": "team", "name": "waits", "reason": "SecretNotFound"
    }  # fmt: skip


async def test_bad_ends_are_told_with_the_moment_they_came() -> None:
    store, moment = Store(), datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    finished = [condition("Finished", "True", "Rejected")]
    succeeded = [condition("Succeeded", "True", "Measured")]
    store.put(kept(JOB, "rejected", state="Rejected", conditions=finished))
    store.put(kept(JOB, "ready", state="Ready", conditions=finished))
    store.put(kept(RUN, "judged", state="Failed", conditions=succeeded))
    store.put(kept(RUN, "passed", state="Passed", conditions=succeeded))
    found, name = await told(store), "tunesmith_failed_timestamp_seconds"
    team = {"namespace": "team"}
    assert len(found.labels(name)) == 2
    rejected = {"kind": "FineTuneJob", "name": "rejected", "state": "Rejected"}
    assert found.value(name, **team, **rejected) == moment
    judged = {"kind": "EvalRun", "name": "judged", "state": "Failed"}
    assert found.value(name, **team, **judged) == moment


async def test_of_a_deployments_adapters_those_that_lack_somewhere_are_named() -> None:
    store = Store()
    adapters = [
        {"name": "triage", "version": "aaa", "replicasReady": 2, "replicasWanted": 2},
        {"name": "tone", "version": "bbb", "replicasReady": 1, "replicasWanted": 2},
    ]
    refused = [{"name": "old", "reason": "NotPassed", "message": "No."}]
    store.put(kept(DEPLOYMENT, "support", adapters=adapters, notServed=refused))
    found, whose = await told(store), {"namespace": "team", "name": "support"}
    assert found.value("tunesmith_adapters_wanted", **whose) == 2
    assert found.value("tunesmith_adapters_ready", **whose) == 1
    missing = "tunesmith_adapter_replicas_missing"
    assert found.labels(missing) == [{**whose, "adapter": "tone", "version": "bbb"}]
    assert found.value("tunesmith_adapters_not_served", **whose, reason="NotPassed") == 1


@pytest.mark.parametrize(
    "status",
    [{"conditions": 7}, {"usage": {"gpuSeconds": "many"}}, {"adapters": [None]}, {"usage": []}],
)
async def test_a_status_that_a_hand_has_spoilt_hides_no_other(status: dict[str, Any]) -> None:
    store = Store()
    store.put(kept(DEPLOYMENT, "spoilt", **status))
    store.put(kept(DEPLOYMENT, "sound", state="Ready"))
    found, name = await told(store), "tunesmith_adapterdeployments"
    assert found.value(name, namespace="team", state="Unreadable") == 1
    assert found.value(name, namespace="team", state="Ready") == 1


async def test_gpu_seconds_count_once_for_each_attempt_and_stay_when_the_job_goes() -> None:
    store, whose = Store(), {"namespace": "team-of-gpus"}
    job = kept(JOB, "triage")
    job["metadata"]["namespace"] = whose["namespace"]
    store.put(job)
    asked, name = exposition(store), "tunesmith_gpu_seconds_total"
    assert (await told(asked)).value(name, **whose) == 0
    used: dict[str, Any] = {"usage": {"attempts": 1, "gpuSeconds": 120}}
    count_results(job, used)
    count_results(job | {"status": used}, used | {"state": "Ready"})
    count_results(job | {"status": used}, {"usage": {"attempts": 2, "gpuSeconds": 150}})
    store.put({**job, "metadata": job["metadata"] | {"resourceVersion": "2"}, "status": used})
    found = await told(asked)
    assert found.value(name, **whose) == 150
    assert found.value("tunesmith_finetunejob_gpu_seconds", **whose, name="triage") == 120
    job["metadata"]["resourceVersion"] = "3"
    store.remove(job)
    found = await told(asked)
    assert found.value(name, **whose) == 150
    assert found.labels("tunesmith_finetunejob_gpu_seconds") == []


async def test_a_verdict_counts_when_it_falls_and_not_when_it_is_written_again() -> None:
    run = kept(RUN, "run")
    run["metadata"]["namespace"] = "team-of-verdicts"
    count_results(run, {"verdict": "Failed"})
    count_results(run | {"status": {"verdict": "Failed"}}, {"verdict": "Failed"})
    labels = {"namespace": "team-of-verdicts", "verdict": "Failed"}
    assert (await told(Store())).value("tunesmith_verdicts_total", **labels) == 1


async def test_what_waits_is_told_by_lane_and_what_fails_until_it_works_again() -> None:
    works = False

    async def reconcile(_: Key) -> Any:
        if not works:
            raise RuntimeError("poison")
        return await nothing(key)

    queue, key = WorkQueue(reconcile, 1), Key(str(JOB), "team", "triage")
    queue.add(key, Lane.NEW)
    queue.add(Key(str(JOB), "team", "other"), Lane.ROUTINE)
    asked = exposition(Store(), queue)
    found = await told(asked)
    assert found.value("tunesmith_queue_depth", lane="new") == 1
    assert found.value("tunesmith_queue_depth", lane="routine") == 1
    running = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        while queue.failing() < 2:
            await asyncio.sleep(0.005)
        assert (await told(asked)).value("tunesmith_reconcile_failing") == 2
        works = True
        queue.add(key)
        while queue.failing() > 1:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("held", [True, False])
async def test_exactly_the_replica_with_the_lease_says_that_it_leads(held: bool) -> None:
    asked = exposition(Store(), held=held)
    assert (await told(asked)).value("tunesmith_leader") == held


async def test_prometheus_own_linter_finds_nothing_to_say() -> None:
    store = Store()
    store.put(kept(JOB, "one", state="Training", usage={"attempts": 1, "gpuSeconds": 5}))
    text = await exposition(store).text()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
