"""Whose files are deleted: only those that nobody serves, and only if that is wished."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunesmith.adapterdeployment.decision import Replica
from tunesmith.adapterdeployment.plan import plan

from tests.unit.operator import given
from tests.unit.operator.serving_given import (
    World,
    digest,
    ready_job,
    settled,
    version,
    versions_of,
)


def with_three_versions(**adapters: Any) -> World:
    """The third has taken over; one superseded version is kept, the first is not."""
    world = settled(*versions_of("triage", 1, 2, 3), adapters={"deleteFiles": True, **adapters})
    world.merge_jobs = []
    return world


def removed(world: World) -> list[str]:
    """Names of the Jobs that the next pass creates."""
    return [each["metadata"]["name"] for each in world.plan().create if each["kind"] == "Job"]


def test_the_files_of_a_version_that_is_kept_no_longer_are_deleted() -> None:
    assert removed(with_three_versions()) == [f"serving-remove-{version(1)}-1"]


def test_nothing_is_deleted_unless_that_is_wished() -> None:
    assert removed(with_three_versions(deleteFiles=False)) == []


def test_a_version_that_is_kept_keeps_its_files() -> None:
    assert removed(with_three_versions(keepVersions=2)) == []


def with_report(replica: Replica, **changes: Any) -> Replica:
    assert replica.report is not None
    return replace(replica, report=replica.report.model_copy(update=changes))


def test_files_stay_while_a_replica_still_has_them_loaded() -> None:
    world = with_three_versions()
    leaving = [f"triage@{version(1)}"]
    world.replicas = [with_report(each, leaving=leaving) for each in world.replicas]
    assert removed(world) == []


def test_files_stay_while_a_replica_is_silent() -> None:
    world = with_three_versions()
    world.replicas.append(Replica(world.replicas[0].pod, None))
    assert removed(world) == []


def test_files_stay_while_a_replica_still_wants_them() -> None:
    world = with_three_versions()
    before = settled(*versions_of("triage", 1)).replicas
    world.replicas += before
    assert removed(world) == []


def test_files_that_another_deployment_serves_stay() -> None:
    world = with_three_versions()
    seen = replace(world.observed(), served_elsewhere=frozenset({digest(1)}))
    assert not plan(seen, world.settings, given.NOW).create


def test_what_was_deleted_is_not_deleted_again() -> None:
    world = with_three_versions()
    world.step()
    world.merge(1)
    assert removed(world) == []


def test_a_version_whose_files_are_being_deleted_is_wanted_no_more() -> None:
    """Its pod may be waiting for a node: nobody can call it back."""
    world = with_three_versions()
    world.step()
    world.change(adapters={"deleteFiles": True, "keepVersions": 2})
    status = world.step()
    assert version(1) not in {each.version for each in status.adapters}
    (told,) = [each for each in status.not_served if each.reason == "FilesDeleted"]
    assert told.name == "job-1"
    world.change(adapters={"keepVersions": 2})
    assert version(1) not in {each.version for each in world.step().adapters}


def test_the_same_adapter_at_another_place_is_served() -> None:
    world = with_three_versions()
    world.step()
    again = ready_job("job-4", 4, serves="triage", claim="elsewhere", age=5.0)
    artifact = {"digest": digest(1), "uri": "pvc://elsewhere/tuned", "rank": 16}
    assert again.status.artifact
    world.jobs.append(
        again.model_copy(
            update={
                "status": again.status.model_copy(
                    update={
                        "artifact": again.status.artifact.model_copy(update=artifact),
                        "evaluation": again.status.evaluation
                        and again.status.evaluation.model_copy(
                            update={"adapter_digest": digest(1)}
                        ),
                    }
                )
            }
        )
    )
    status = world.settle()
    (found,) = [each for each in status.adapters if each.version == version(1)]
    assert (found.state, found.uri) == ("Promoted", "pvc://elsewhere/tuned")


def test_merged_weights_keep_the_files_of_as_many_versions() -> None:
    """A second adapter leads back to adapters beside the base, where they are loaded again."""
    world = World(
        given.adapterdeployment(
            strategy="Merged", adapters={"deleteFiles": True, "keepVersions": 1}
        ),
        versions_of("triage", 1, 2, 3),
    )
    world.step()
    world.merge(3)
    world.settle()
    made = [each["metadata"]["name"] for each in world.merge_jobs]
    assert made == [f"serving-merge-{version(3)}-1", f"serving-remove-{version(1)}-1"]


def test_a_deletion_that_fails_is_told_and_the_rest_is_served() -> None:
    world = with_three_versions()
    world.step()
    world.merge(1, "Failed")
    status = world.step()
    (warning,) = [each for each in status.conditions if each.type == "Warning"]
    assert warning.reason == "FilesNotDeleted"
    assert "pvc://" in warning.message
    assert status.state == "Ready"
