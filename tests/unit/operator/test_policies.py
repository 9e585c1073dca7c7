"""What TuningPolicies give to objects that do not say it themselves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState
from tunesmith.api.tuningpolicy import TuningPolicy
from tunesmith.evalrun.observe import with_defaults as run_with_defaults
from tunesmith.evalrun.plan import Observed as ObservedRun
from tunesmith.evalrun.plan import plan as plan_run
from tunesmith.finetunejob.defaults import with_defaults
from tunesmith.kube.plan import Plan
from tunesmith.kube.policies import NO_DEFAULTS, Defaults, combined, defaults_in
from tunesmith.kube.store import Store

from tests.unit.operator import given
from tests.unit.operator.plans import (
    AT_ONCE,
    condition,
    created_job,
    created_plan,
    planned,
    seen,
    status_of,
)
from tests.unit.operator.serving_given import World, ready_job, versions_of

QUEUE = "kueue.x-k8s.io/queue-name"
POOL = {"nodeSelector": {"pool": "tenants"}}
GIVEN = {
    **POOL,
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "queue": "team-queue",
    "output": {"uri": "s3://adapters", "secretRef": {"name": "store"}},
    "trainerImage": "trainer:tenants",
    "servingImage": "vllm:tenants",
}


def policy(name: str = "tenants", **spec: Any) -> TuningPolicy:
    return TuningPolicy.from_object({"metadata": {"name": name}, "spec": spec})


def gives(**defaults: Any) -> Defaults:
    return combined([policy(defaults=defaults)], {})


ALL_OF_IT = gives(**GIVEN)


# --- which policy gives what ---------------------------------------------------------------------


def test_the_first_policy_by_name_that_gives_something_gives_it() -> None:
    first = policy("a", defaults={"queue": "first"})
    second = policy("b", defaults={"queue": "second", **POOL})
    found = combined([second, first], {})
    assert (found.queue, found.trainer.node_selector) == ("first", {"pool": "tenants"})


def test_a_policy_gives_only_where_it_holds() -> None:
    chosen = policy(namespaces={"matchLabels": {"team": "support"}}, defaults=GIVEN)
    assert combined([chosen], {"team": "sales", "zone": "a"}) == NO_DEFAULTS
    assert combined([chosen], {"team": "support", "zone": "a"}) == ALL_OF_IT


def test_the_shortest_of_the_longest_times_is_the_deadline() -> None:
    policies = [policy("a", allowed={"maxHours": 2}), policy("b", allowed={"maxHours": 0.5})]
    assert combined(policies, {}).deadline_seconds == 1800


def test_what_holds_in_a_namespace_is_read_from_what_the_watches_told() -> None:
    store = Store()
    version = iter(range(1, 9))

    def told(kind: str, name: str, **more: Any) -> None:
        labels = more.pop("labels", {})
        metadata = {"name": name, "labels": labels, "resourceVersion": str(next(version))}
        store.put({"kind": kind, "metadata": metadata, **more})

    spec = {"namespaces": {"matchLabels": {"team": "support"}}, "defaults": {"queue": "gpus"}}
    told("Namespace", "team", labels={"team": "support"})
    assert defaults_in(store, "team") == NO_DEFAULTS
    told("TuningPolicy", "tenants", spec=spec)
    assert defaults_in(store, "team").queue == "gpus"
    assert defaults_in(store, "elsewhere") == NO_DEFAULTS
    told("Namespace", "team", labels={"team": "sales"})
    assert defaults_in(store, "team") == NO_DEFAULTS


def test_a_policy_that_cannot_be_read_hides_no_other() -> None:
    store = Store()
    for number, spec in enumerate(({"allowed": "all"}, {"defaults": {"queue": "gpus"}}), start=1):
        metadata = {"name": f"policy-{number}", "resourceVersion": str(number)}
        store.put({"kind": "TuningPolicy", "metadata": metadata, "spec": spec})
    assert defaults_in(store, "team").queue == "gpus"


# --- a FineTuneJob -------------------------------------------------------------------------------


def trains(job: FineTuneJob, defaults: Defaults = ALL_OF_IT) -> given.Raw:
    """The Job of the first attempt of a job whose data is ready."""
    return created_job(planned(seen(with_defaults(job, defaults, []))))


def prepared(**more: Any) -> FineTuneJob:
    return given.finetunejob(status=given.prepared(), evaluation=AT_ONCE, **more)


def pod_of(job: given.Raw) -> given.Raw:
    return dict(job["spec"]["template"]["spec"])


def test_training_gets_what_the_job_does_not_say() -> None:
    job = trains(prepared(), replace(ALL_OF_IT, deadline_seconds=3600))
    pod = pod_of(job)
    assert pod["nodeSelector"] == {"pool": "tenants"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["containers"][0]["image"] == "trainer:tenants"
    assert created_image(job) == "trainer:tenants", "the lineage names what ran"
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert (job["metadata"]["labels"][QUEUE], job["spec"]["suspend"]) == ("team-queue", True)


def created_image(job: given.Raw) -> str:
    return str(given.plan_of(job)["image"])


def test_what_the_job_says_itself_stays() -> None:
    own = {
        "nodeSelector": {"pool": "own"},
        "tolerations": [{"key": "own", "operator": "Exists"}],
        "image": "own:1",
    }
    job = trains(
        prepared(labels={QUEUE: "own-queue"}, podTemplate=own, activeDeadlineSeconds=60),
        replace(ALL_OF_IT, deadline_seconds=3600),
    )
    pod = pod_of(job)
    assert pod["nodeSelector"] == {"pool": "own"}
    assert [each["key"] for each in pod["tolerations"]] == ["own"]
    assert pod["containers"][0]["image"] == "own:1"
    assert job["spec"]["activeDeadlineSeconds"] == 60
    assert job["metadata"]["labels"][QUEUE] == "own-queue"


def test_the_preparation_runs_in_the_same_pool_but_in_no_queue() -> None:
    job = with_defaults(given.finetunejob(), ALL_OF_IT, [])
    made = created_job(planned(seen(job)))
    assert pod_of(made)["nodeSelector"] == {"pool": "tenants"}
    assert QUEUE not in made["metadata"]["labels"]


def test_the_evalrun_of_a_job_gets_what_the_job_is_given() -> None:
    job = given.finetunejob(status=given.prepared())
    (run,) = planned(seen(with_defaults(job, ALL_OF_IT, []))).create
    assert run["kind"] == "EvalRun"
    assert run["metadata"]["labels"][QUEUE] == "team-queue"
    assert run["spec"]["podTemplate"]["nodeSelector"] == {"pool": "tenants"}
    assert run["spec"]["podTemplate"]["image"] == "trainer:tenants"


# --- its output ----------------------------------------------------------------------------------


def without_output(status: given.Raw | None = None, **more: Any) -> FineTuneJob:
    return given.finetunejob(status=status, evaluation=AT_ONCE, output=None, **more)


def plan_with(job: FineTuneJob, defaults: Defaults, preparation: Sequence[given.Raw] = ()) -> Plan:
    return planned(seen(with_defaults(job, defaults, preparation), preparation=preparation))


def test_a_job_without_an_output_waits_and_says_what_to_do() -> None:
    made = plan_with(without_output(), NO_DEFAULTS)
    assert not made.create
    assert status_of(made).state is JobState.WAITING
    stalled = condition(made, "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "NoOutput")
    assert "apply it with output.uri" in stalled.message


def test_an_output_that_a_policy_gives_is_used_and_written_down() -> None:
    made = plan_with(without_output(), ALL_OF_IT)
    assert created_plan(made)["output"]["uri"].startswith("s3://adapters/team/triage/")
    output = status_of(made).output
    assert output
    assert output.to_json() == GIVEN["output"]


def test_a_status_that_was_lost_has_the_output_again_from_the_batch_jobs() -> None:
    (job,) = plan_with(without_output(), ALL_OF_IT).create
    annotations = {"tunesmith.dev/output": job["metadata"]["annotations"]["tunesmith.dev/output"]}
    under_way = given.batch_job(stage="prepare", annotations=annotations)
    made = plan_with(without_output(), gives(output={"uri": "pvc://moved"}), [under_way])
    output = status_of(made).output
    assert output
    assert output.uri == "s3://adapters"


@pytest.mark.parametrize("spoilt", ["no JSON", "[]", '{"uri": 1}'])
def test_a_note_that_a_hand_has_spoilt_is_passed_over(spoilt: str) -> None:
    under_way = given.batch_job(stage="prepare", annotations={"tunesmith.dev/output": spoilt})
    made = plan_with(without_output(), ALL_OF_IT, [under_way])
    output = status_of(made).output
    assert output
    assert output.uri == "s3://adapters"


@pytest.mark.parametrize("defaults", [NO_DEFAULTS, gives(output={"uri": "pvc://moved"})])
def test_a_policy_that_changes_moves_no_output(defaults: Defaults) -> None:
    status = given.prepared(output=GIVEN["output"])
    made = plan_with(without_output(status), defaults)
    assert created_plan(made)["output"]["uri"].startswith("s3://adapters/")
    assert status_of(made).output == status_of(plan_with(without_output(status), ALL_OF_IT)).output
    secrets = [
        each["valueFrom"]["secretKeyRef"]["name"]
        for each in pod_of(created_job(made))["containers"][0]["env"]
        if "valueFrom" in each
    ]
    assert set(secrets) == {"store"}


def test_an_output_of_its_own_is_used_and_nothing_is_written_down() -> None:
    made = plan_with(given.finetunejob(), ALL_OF_IT)
    assert created_plan(made)["output"]["uri"].startswith("pvc://adapters/tuned/")
    assert status_of(made).output is None
    assert "tunesmith.dev/output" not in created_job(made)["metadata"]["annotations"]


# --- an EvalRun ----------------------------------------------------------------------------------


def evaluates(run: EvalRun, defaults: Defaults) -> given.Raw:
    seen_run = ObservedRun(
        run_with_defaults(run, defaults), deadline_seconds=defaults.deadline_seconds
    )
    return created_job(plan_run(seen_run, given.SETTINGS, given.NOW))


def test_an_evaluation_gets_pool_image_queue_and_deadline() -> None:
    job = evaluates(given.evalrun(), replace(ALL_OF_IT, deadline_seconds=3600))
    assert pod_of(job)["nodeSelector"] == {"pool": "tenants"}
    assert pod_of(job)["containers"][0]["image"] == "trainer:tenants"
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert job["metadata"]["labels"][QUEUE] == "team-queue"


# --- an AdapterDeployment ------------------------------------------------------------------------

MOVED = gives(nodeSelector={"pool": "moved"}, servingImage="vllm:2")


def serving(defaults: Defaults, **spec: Any) -> World:
    world = World(given.adapterdeployment(**spec), [ready_job()], defaults=defaults)
    world.settle()
    return world


def test_servers_run_where_and_with_what_the_policy_says() -> None:
    pod = serving(ALL_OF_IT).template()["spec"]
    assert pod["nodeSelector"] == {"pool": "tenants"}
    assert pod["containers"][0]["image"] == "vllm:tenants"


@pytest.mark.parametrize(
    ("before", "after"),
    [(ALL_OF_IT, MOVED), (ALL_OF_IT, NO_DEFAULTS), (NO_DEFAULTS, MOVED)],
    ids=["changed", "removed", "added"],
)
def test_a_policy_that_changes_restarts_no_server(before: Defaults, after: Defaults) -> None:
    world = serving(before)
    template = copy.deepcopy(world.template())
    world.defaults = after
    world.settle()
    assert not world.plan().apply
    assert world.template() == template


def test_servers_that_are_rolled_for_another_reason_take_the_new_defaults() -> None:
    world = serving(ALL_OF_IT)
    world.defaults = MOVED
    world.change(maxModelLength=512)
    world.settle()
    pod = world.template()["spec"]
    assert pod["nodeSelector"] == {"pool": "moved"}
    assert "tolerations" not in pod
    assert pod["containers"][0]["image"] == "vllm:2"


def test_what_the_deployment_says_itself_stays_its_own() -> None:
    world = serving(ALL_OF_IT, podTemplate={"nodeSelector": {"pool": "own"}})
    assert world.template()["spec"]["nodeSelector"] == {"pool": "own"}
    world.change(podTemplate={})
    world.settle()
    assert world.template()["spec"]["nodeSelector"] == {"pool": "tenants"}


def test_a_merge_runs_where_the_trainer_runs_and_with_its_image() -> None:
    world = World(
        given.adapterdeployment(strategy="Merged", podTemplate={"image": "vllm:own"}),
        versions_of("triage", 1),
        defaults=ALL_OF_IT,
    )
    world.step()
    (job,) = world.merge_jobs
    assert pod_of(job)["nodeSelector"] == {"pool": "tenants"}
    assert pod_of(job)["containers"][0]["image"] == "trainer:tenants"
