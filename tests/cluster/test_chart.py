"""The chart's life with a job running: failover, upgrade, uninstall, and installed again.

Real helm, API server, Job controller and kubelet; the trainer is played (``played_trainer``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Kubectl, Object
from tests.cluster.release import NAME, NEWER_FIELD, Release, previous_chart, release_for
from tests.cluster.test_faults import GOOD_ROWS, cached_model, copy_in
from tests.cluster.test_stages import (
    finetunejob,
    finish,
    has_left,
    namespace_of_players,
    training_jobs,
    until,
    until_state,
)

#: A lease that is given back is taken at the next try, two seconds later at most.
TAKE_OVER_SECONDS = 10


@dataclass(frozen=True)
class Stage:
    """The release, its team with a job that trains, and a namespace that is not for it."""

    release: Release
    team: Kubectl
    elsewhere: Kubectl
    #: The team's, before the release went.
    before: dict[str, str] = field(default_factory=dict)

    def everything(self) -> dict[str, str]:
        """The uids of what is the team's: whatever has another one was lost and made again."""
        kinds = ("finetunejobs", "jobs", "pods", "configmaps", "persistentvolumeclaims")
        found = [(kind, each["metadata"]) for kind in kinds for each in self.team.list(kind)]
        return {f"{kind}/{each['name']}": each["uid"] for kind, each in found}


def definition_knows(field: str) -> bool:
    definition = Kubectl("default").get("crd", "finetunejobs.tunesmith.dev")
    schema: Object = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return field in schema["properties"]["spec"]["properties"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The version before, for one namespace, with two replicas; a job trains."""
    values = {"networkPolicy": {"enabled": True}, "huggingFace": {"cache": "pvc://library/hub"}}
    with namespace_of_players("chart") as team, release_for(team, values) as release:
        release.bring(previous_chart(tmp_path_factory.mktemp("previous")))
        elsewhere = create_namespace(f"{team.namespace}-not")
        elsewhere.apply(finetunejob("lasting"))
        team.apply(finetunejob("lasting"))
        until(lambda: has_left(team, "trains-lasting"))
        yield Stage(release, team, elsewhere)
        elsewhere.run("delete", "namespace", elsewhere.namespace, "--wait=false")


@pytest.fixture(scope="module")
def uninstalled(installed: Stage) -> Stage:
    """The same without the release, and with what was the team's before."""
    team = installed.team
    team.apply(finetunejob("goes"))
    until(lambda: has_left(team, "trains-goes"))
    before = installed.everything()
    installed.release.remove()
    return replace(installed, before=before)


def test_an_operator_of_one_namespace_leaves_all_others_alone(installed: Stage) -> None:
    assert training_jobs(installed.team, "lasting") == ["lasting-train-1"]
    until_state(installed.team, "lasting", "Preparing")
    assert "status" not in installed.elsewhere.get("finetunejob", "lasting")
    assert installed.elsewhere.list("jobs") == []


def test_it_asks_for_nothing_outside_its_namespaces(installed: Stage) -> None:
    release = installed.release
    logs = [release.system.run("logs", each["metadata"]["name"]) for each in release.pods()]
    assert len(logs) == 2
    assert not [line for log in logs for line in log.splitlines() if "orbidden" in line]
    account = f"system:serviceaccount:{release.system.namespace}:{NAME}-operator"
    may_not = installed.elsewhere.run("auth", "can-i", "--list", "--as", account)
    assert "finetunejobs" not in may_not


def test_the_policies_of_its_namespace_are_there(installed: Stage) -> None:
    names = {each["metadata"]["name"] for each in installed.team.list("networkpolicies")}
    assert {f"{NAME}-trainers", f"{NAME}-servers"} <= names


def test_a_model_of_the_hub_is_found_in_the_platform_teams_cache(installed: Stage) -> None:
    """With the real trainer, which reads the model to prepare the data for it."""
    team = installed.team
    copy_in(team, cached_model("hub") | {"rows.jsonl": GOOD_ROWS.encode()})
    job = finetunejob(
        "from-the-cache",
        baseModel={"uri": "hf://team/tiny"},
        dataset={"uri": "pvc://library/rows.jsonl", "review": {"required": True}},
        training={"maxLength": 256},
        resources={"gpus": 0, "memory": "2Gi"},
        podTemplate={},
    )
    team.apply(job)
    until_state(team, "from-the-cache", "AwaitingReview", 90)
    (pod,) = team.list("pods", "tunesmith.dev/finetunejob=from-the-cache")
    assert not [key for key in pod["metadata"]["labels"] if "reaches" in key]


def test_one_of_two_replicas_acts_and_the_other_takes_over_at_once(installed: Stage) -> None:
    release, before = installed.release, installed.everything()
    leader = release.holder()
    names = {each["metadata"]["name"] for each in release.pods()}
    assert leader in names
    (standby,) = names - {leader}
    assert "holds the lease" not in release.system.run("logs", standby)
    began = time.monotonic()
    release.system.run("delete", "pod", leader, "--wait=false")
    until(lambda: release.holder() == standby, TAKE_OVER_SECONDS)
    print(f"the standby took over after {time.monotonic() - began:.1f} s")
    installed.team.apply(finetunejob("later", suspend=True))
    until_state(installed.team, "later", "Suspended")
    assert before.items() <= installed.everything().items()


def test_an_upgrade_brings_a_new_operator_and_new_definitions_and_restarts_no_job(
    installed: Stage,
) -> None:
    before = installed.everything()
    assert not definition_knows(NEWER_FIELD)
    installed.release.bring(image="operator-next")
    assert definition_knows(NEWER_FIELD)
    found = {each["spec"]["containers"][0]["image"] for each in installed.release.pods()}
    assert found == {"tunesmith.dev/operator-next:dev"}
    installed.team.apply(finetunejob("after-the-upgrade", suspend=True))
    until_state(installed.team, "after-the-upgrade", "Suspended")
    assert before.items() <= installed.everything().items()


def test_what_is_the_teams_outlives_an_uninstall_and_nothing_hangs(uninstalled: Stage) -> None:
    team = uninstalled.team
    assert uninstalled.release.pods() == []
    assert definition_knows(NEWER_FIELD)
    before = uninstalled.before
    assert "finetunejobs/lasting" in before
    assert before.items() <= uninstalled.everything().items()
    # Nobody is there who could take away a finalizer.
    team.run("delete", "finetunejob", "goes", "--wait", "--timeout=30s")
    until(lambda: not team.list("jobs", "tunesmith.dev/finetunejob=goes"))


def test_installed_again_the_operator_goes_on_where_it_stood(uninstalled: Stage) -> None:
    uninstalled.release.bring()
    finish(uninstalled.team, "lasting")
    status = uninstalled.team.get("finetunejob", "lasting")["status"]
    assert (status["attempt"], status["countedFailures"]) == (1, 0)
    after = uninstalled.everything()
    trained = "jobs/lasting-train-1"
    assert after[trained] == uninstalled.before[trained]
