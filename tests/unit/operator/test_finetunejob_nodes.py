"""A FineTuneJob on several GPUs and several nodes."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.job_status import JobState
from tunesmith.api.objects import FailureClass
from tunesmith.api.trainer_contract import ExitCode, Reason
from tunesmith.kube.attempts import Attempt
from tunesmith.kube.observed_attempt import latest_attempt

from tests.unit.operator import given
from tests.unit.operator.plans import (
    AT_ONCE,
    condition,
    created_job,
    created_plan,
    names,
    planned,
    seen,
    status_of,
)

GROUP = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}


def first(**resources: Any) -> Any:
    job = given.finetunejob(status=given.prepared(), evaluation=AT_ONCE, resources=resources)
    return planned(seen(job))


def test_several_nodes_are_an_indexed_job_with_a_service_of_its_name() -> None:
    made = first(gpus=8, nodes=2)
    assert names(made) == [
        ("Service", "triage-train-1"),
        ("Job", "triage-train-1"),
    ]
    spec = created_job(made)["spec"]
    assert {key: spec[key] for key in GROUP} == GROUP
    assert spec["template"]["spec"]["subdomain"] == "triage-train-1"


def test_the_pods_find_each_other_before_they_are_ready() -> None:
    service = first(nodes=2).create[0]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "triage-train-1"}
    assert service["metadata"]["ownerReferences"][0]["name"] == "triage"


def test_the_plan_says_how_many_work_together_and_where_they_meet() -> None:
    plan = created_plan(first(gpus=8, nodes=2))
    assert (plan["nodes"], plan["processesPerNode"]) == (2, 8)
    assert plan["rendezvous"] == "triage-train-1-0.triage-train-1:29400"


def test_one_node_needs_no_service_and_no_meeting_point() -> None:
    made = first(gpus=4)
    assert [kind for kind, _ in names(made)] == ["Job"]
    assert "completionMode" not in created_job(made)["spec"]
    assert "rendezvous" not in created_plan(made)
    assert created_plan(made)["processesPerNode"] == 4


@pytest.mark.parametrize(
    ("resources", "shared"), [({"gpus": 1}, False), ({"gpus": 2}, True), ({"nodes": 2}, True)]
)
def test_processes_that_share_tensors_have_the_memory_for_it(
    resources: given.Raw, shared: bool
) -> None:
    volumes = created_job(first(**resources))["spec"]["template"]["spec"]["volumes"]
    assert ({"name": "shared-memory", "emptyDir": {"medium": "Memory"}} in volumes) is shared


@pytest.mark.parametrize(("nodes", "action"), [(1, "Ignore"), (2, "FailJob")])
def test_a_pod_that_is_taken_away_is_replaced_alone_or_all_begin_again(
    nodes: int, action: str
) -> None:
    (rule,) = created_job(first(nodes=nodes))["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == action
    assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def attempt(*pods: given.Raw, finished: str | None = None) -> Attempt:
    found = latest_attempt([given.batch_job(finished=finished, spec=GROUP)], list(pods))
    assert found is not None
    return found


def test_it_runs_once_all_run_and_the_first_one_speaks() -> None:
    leader, other = given.pod(index=0, podIP="10.0.0.1"), given.pod(index=1, podIP="10.0.0.2")
    assert attempt(leader).state == "Waiting"
    assert attempt(other, leader).state == "Running"
    assert attempt(other, leader).pod_address == "10.0.0.1"


def test_what_keeps_any_of_them_from_running_is_told() -> None:
    stuck = given.pod(phase="Pending", unschedulable="0/1 nodes are available.", index=1)
    found = attempt(given.pod(index=0), stuck)
    assert found.state == "Waiting"
    assert found.trouble is not None
    assert found.trouble.reason == "Unschedulable"


def test_the_result_is_the_first_ones() -> None:
    other = given.pod(phase="Succeeded", terminated={"exitCode": 0}, index=1)
    found = attempt(other, given.ended(given.trained(), 0, index=0), finished="Complete")
    assert found.message == given.trained()


def failed_pod(index: int, code: int, word: Any = None, at: int = 60) -> given.Raw:
    text = word.to_line() if word else ""
    end = {"exitCode": code, "message": text, "finishedAt": given.moment(at)}
    return given.pod(phase="Failed", terminated=end, index=index)


def test_a_failure_of_any_of_them_is_the_reason() -> None:
    memory = given.failed(FailureClass.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY, "Out of memory.")
    stopped = given.failed(FailureClass.PREEMPTED, Reason.PREEMPTED, "Told to stop.")
    found = attempt(
        failed_pod(0, ExitCode.PREEMPTED, stopped, at=70),
        failed_pod(1, ExitCode.OUT_OF_MEMORY, memory, at=60),
        finished="Failed",
    )
    assert found.failure is not None
    assert (found.failure.reason, found.failure.exit_code) == ("OutOfMemory", 12)


def test_of_several_failures_the_first_explains_the_others() -> None:
    found = attempt(
        failed_pod(0, 1, at=50),
        failed_pod(
            1, 10, given.failed(FailureClass.USER_ERROR, Reason.LOSS_NOT_FINITE, "NaN."), at=60
        ),
        finished="Failed",
    )
    assert found.failure is not None
    assert found.failure.reason == "LossNotFinite"


def test_a_pod_that_was_taken_away_explains_what_its_peers_said_and_does_not_count() -> None:
    taken = failed_pod(1, 137, at=50)
    taken["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True"})
    job = given.finetunejob(status=given.prepared(), evaluation=AT_ONCE, backoffLimit=0)
    jobs = [given.batch_job(finished="Failed", spec=GROUP)]
    made = planned(seen(job, jobs, pods=[failed_pod(0, 1, at=60), taken]))
    assert names(made)[-1] == ("Job", "triage-train-2")
    annotations = created_job(made)["metadata"]["annotations"]
    assert annotations["tunesmith.dev/counted-failures"] == "0"
    failure = status_of(made).failure
    assert failure is not None
    assert failure.failure_class is FailureClass.PREEMPTED


def test_its_service_goes_with_the_attempt() -> None:
    jobs = [
        given.batch_job(1, finished="Failed", spec=GROUP),
        given.batch_job(2, finished="Failed", spec=GROUP),
    ]
    crash = given.pod(2, "Failed", terminated={"exitCode": 1}, index=0)
    job = given.finetunejob(status=given.prepared(), evaluation=AT_ONCE, resources={"nodes": 2})
    made = planned(seen(job, jobs, pods=[crash]))
    assert status_of(made).state is JobState.PENDING
    assert ("Service", "triage-train-1") in made.obsolete
    assert ("Service", "triage-train-2") not in made.obsolete


def test_progress_of_a_group_is_told_as_of_one() -> None:
    jobs = [given.batch_job(spec=GROUP)]
    job = given.finetunejob(status=given.prepared(attempt=1), resources={"nodes": 2})
    made = planned(seen(job, jobs, pods=[given.pod(index=0), given.pod(index=1)]))
    assert condition(made, "Succeeded").message == "The model is being loaded."
