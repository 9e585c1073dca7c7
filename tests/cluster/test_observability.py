"""What the installed operator tells of jobs that really run; the trainer is played."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tunesmith.metrics.facts import Facts, facts

from examples.demo.kubectl import Kubectl, Object
from tests.cluster.test_stages import finetunejob, finish, namespace_of_players, runs, until
from tests.unit.monitoring.chart import alerts, queries
from tests.unit.monitoring.names import of_operator, used
from tests.unit.operator.metrics_told import Told

SYSTEM = Kubectl("tunesmith-system")
OPERATOR = "app.kubernetes.io/component=operator"
JOB = "FineTuneJob"
NOBODYS_BUSINESS = "hunter2-of-the-observability-test"


@pytest.fixture(scope="module")
def team() -> Iterator[Kubectl]:
    with namespace_of_players("observed") as kubectl:
        yield kubectl


def pods() -> list[str]:
    found = [each["metadata"] for each in SYSTEM.list("pods", OPERATOR)]
    return [each["name"] for each in found if "deletionTimestamp" not in each]


def scrape(pod: str) -> Told:
    """/metrics as Prometheus gets it, through the API server's own proxy."""
    path = f"/api/v1/namespaces/{SYSTEM.namespace}/pods/{pod}:8080/proxy/metrics"
    return Told(SYSTEM.run("get", "--raw", path).encode())


def leader() -> Told:
    """Of the one replica that leads; after a restart nobody does for some seconds."""

    def leading() -> list[Told]:
        return [each for each in map(scrape, pods()) if each.value("tunesmith_leader") == 1]

    found: list[Told] = until(leading)
    assert len(found) == 1
    return found[0]


def seen(kubectl: Kubectl, name: str) -> Facts:
    return facts(JOB, kubectl.get("finetunejob", name))


def told(kubectl: Kubectl, name: str, metric: str) -> list[dict[str, str]]:
    """The labels with which a metric names this job."""
    whose = {"namespace": kubectl.namespace, "name": name}
    return [each for each in leader().labels(metric) if each.items() >= whose.items()]


def warnings(kubectl: Kubectl, name: str) -> list[str]:
    """The reasons of the Events that warn of an object."""
    chosen = f"--field-selector=type=Warning,involvedObject.name={name}"
    found = json.loads(kubectl.run("get", "events", chosen, "-o", "json"))
    return [each["reason"] for each in found["items"]]


def test_a_job_is_told_of_as_it_stands_until_it_is_gone(team: Kubectl) -> None:
    before = leader()
    team.apply(finetunejob("triage"))
    until(lambda: runs(team, "triage"))

    def agree() -> bool:
        (state,) = [each["state"] for each in told(team, "triage", "tunesmith_state_seconds")]
        return state == seen(team, "triage").state

    until(agree)
    finish(team, "triage")
    until(lambda: told(team, "triage", "tunesmith_finetunejob_gpu_seconds"))
    now = leader()
    counted = [
        ("tunesmith_reconcile_total", {"kind": JOB, "outcome": "Done"}),
        ("tunesmith_api_requests_total", {"verb": "create", "resource": "jobs", "code": "201"}),
        (
            "tunesmith_api_requests_total",
            {"verb": "patch", "resource": "finetunejobs/status", "code": "200"},
        ),
    ]
    for name, labels in counted:
        assert (now.value(name, **labels) or 0) > (before.value(name, **labels) or 0), name
    # kopf's own requests are among them.
    watches = {"verb": "watch", "resource": "finetunejobs", "code": "200"}
    assert now.value("tunesmith_api_requests_total", **watches)
    team.run("delete", "finetunejob", "triage")
    until(lambda: not told(team, "triage", "tunesmith_finetunejob_gpu_seconds"))


def test_a_job_that_failed_and_one_that_waits_for_somebody_are_named(team: Kubectl) -> None:
    dataset: Object = {"uri": "s3://bucket/any.jsonl", "secretRef": {"name": "not-there"}}
    team.apply(finetunejob("waits", dataset=dataset))
    team.apply(finetunejob("fails", played="DoesNotFit"))
    (failed,) = until(lambda: told(team, "fails", "tunesmith_failed_timestamp_seconds"))
    assert (failed["kind"], failed["state"]) == (JOB, "Failed")
    until(lambda: "DoesNotFit" in warnings(team, "fails"))
    (waits,) = until(lambda: told(team, "waits", "tunesmith_stalled"))
    assert waits["reason"] == seen(team, "waits").stalled


def test_every_metric_that_alerts_and_dashboard_ask_for_is_told() -> None:
    text = {each.name for each in leader().families}
    asked = set().union(*[used(query) for query in queries() + [a.expression for a in alerts()]])
    of_ours = {each.name for each in of_operator()}
    assert {each.removesuffix("_total") for each in asked & of_ours} <= text
    assert {each.name.removesuffix("_total") for each in of_operator()} <= text


def test_log_lines_are_json_name_their_object_and_tell_no_secret(team: Kubectl) -> None:
    secret = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": NOBODYS_BUSINESS}
    team.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "store"},
            "stringData": secret,
        }
    )
    dataset: Object = {"uri": "s3://bucket/any.jsonl", "secretRef": {"name": "store"}}
    team.apply(finetunejob("reads-s3", dataset=dataset))
    until(lambda: runs(team, "reads-s3"))
    text = "".join(SYSTEM.run("logs", each) for each in pods())
    assert NOBODYS_BUSINESS not in text
    assert "Bearer" not in text
    lines = [json.loads(each) for each in text.splitlines()]
    whose = {"kind": JOB, "namespace": team.namespace, "name": "reads-s3"}
    about = [each["message"] for each in lines if each.items() >= whose.items()]
    assert any(each.startswith("created Job") for each in about)
    team.run("delete", "finetunejob", "reads-s3")
