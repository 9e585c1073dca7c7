"""What the operator's benchmarks make of an audit log and of samples."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun

from examples.demo.kubectl import Kubectl
from tests.bench.operator_audit import JOB_CONTROLLER, OPERATOR, AuditLog, percentile
from tests.bench.operator_finished import resting
from tests.bench.operator_runs import _lags, _until_trained
from tests.bench.soak_churn import Churn, deployment, evalrun
from tests.bench.soak_samples import Slope


def moment(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="microseconds")


def line(
    second: float,
    verb: str,
    resource: str,
    name: str = "",
    user: str = OPERATOR,
    stage: str = "ResponseComplete",
    **more: Any,
) -> str:
    resource, _, subresource = resource.partition("/")
    target = {"resource": resource, "subresource": subresource, "namespace": "team", "name": name}
    event = {
        "stage": stage,
        "requestURI": "/",
        "verb": verb,
        "user": {"username": user},
        "objectRef": {key: each for key, each in target.items() if each},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": moment(second),
        "stageTimestamp": moment(second + 0.25),
        **more,
    }
    return json.dumps(event) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    (tmp_path / "audit.log").touch()
    return AuditLog(tmp_path / "audit.log")


def write(log: AuditLog, *lines: str) -> None:
    with log.path.open("a") as file:
        file.writelines(lines)


def test_a_watch_counts_when_it_begins_and_once(log: AuditLog) -> None:
    for stage in ("ResponseStarted", "ResponseComplete"):
        write(log, line(1, "watch", "jobs", stage=stage), line(2, "list", "jobs", stage=stage))
    assert [each.what for each in log.requests(0)] == ["watch jobs", "list jobs"]


def test_a_pod_without_a_name_is_called_after_its_job(log: AuditLog) -> None:
    owners = {"metadata": {"ownerReferences": [{"name": "job-00001-train-1"}]}}
    write(log, line(1, "create", "pods", requestObject=owners))
    assert log.requests(0)[0].name == "job-00001-train-1"


def test_a_line_that_is_still_being_written_waits(log: AuditLog) -> None:
    whole = line(1, "list", "jobs")
    write(log, whole, whole[:40])
    assert len(log.requests(0)) == 1


def test_requests_before_a_position_are_left_out(log: AuditLog) -> None:
    write(log, line(1, "list", "jobs"))
    start = log.position()
    write(log, line(2, "list", "pods"))
    assert [each.what for each in log.requests(start)] == ["list pods"]


def test_writes_count_up_to_the_one_that_says_trained(log: AuditLog) -> None:
    write(
        log,
        line(1, "create", "jobs", "job-00001-prepare-1"),
        line(2, "patch", "finetunejobs/status", "job-00001"),
        line(3, "list", "pods"),
        line(4, "patch", "finetunejobs/status", "job-00001"),
        line(5, "create", "events", "job-00001.0123"),
        line(8, "patch", "finetunejobs/status", "job-00001"),
    )
    counted = _until_trained(log.requests(0), {"job-00001": 6.0})
    assert counted == {"create jobs": 1, "patch finetunejobs/status": 2}


def test_the_lag_is_from_the_last_word_of_the_job_controller_to_the_next_job(log: AuditLog) -> None:
    prepare, train = "job-00001-prepare-1", "job-00001-train-1"
    write(
        log,
        line(1, "update", "jobs/status", prepare, user=JOB_CONTROLLER),
        line(2, "update", "jobs/status", prepare, user=JOB_CONTROLLER),
        line(5, "create", "jobs", train),
        line(9, "update", "jobs/status", train, user=JOB_CONTROLLER),
    )
    assert _lags(log.requests(0), ["job-00001"]) == [2.75]


def test_requests_at_rest_contain_their_share_of_the_resync() -> None:
    assert resting([], of_a_resync=1000)[0].value == 100


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile(range(1, 101), percent) == value


def test_a_slope_is_told_from_its_noise() -> None:
    hours = [number / 100 for number in range(100)]
    exact = Slope.of(hours, [5 + 20 * each for each in hours])
    assert exact.an_hour == pytest.approx(20)
    assert exact.noise == pytest.approx(0, abs=1e-6)
    jumping = Slope.of(hours, [5 + number % 2 for number in range(100)])
    assert abs(jumping.an_hour) < 2 * jumping.noise


def test_what_the_soak_applies_is_readable_and_everything_new_is_deleted_later() -> None:
    AdapterDeployment.from_object(with_identity(deployment()))
    EvalRun.from_object(with_identity(evalrun("run-00000")))
    churn = Churn(Kubectl("nowhere"))
    made = {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for number in range(3)
        for each in churn._new(number)
    }
    assert made == {name for names in churn.due.values() for name in names}
    assert churn.made == len(made)


def with_identity(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {**manifest["metadata"], "namespace": "team", "uid": "1", "generation": 1}
    return {**manifest, "metadata": {**metadata, "creationTimestamp": moment(0)}}
