"""How a new version of an adapter takes over from the one before."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from tunesmith.api.serving_contract import Route, Target, Traffic

from tests.unit.operator import given
from tests.unit.operator.serving_given import (
    World,
    condition,
    holds_it,
    is_ready,
    is_still_loading,
    settled,
    states,
    version,
    versions_of,
)

CANARY = {"weight": 10, "minutes": 10, "maxErrorPercent": 1}
LATER = given.NOW + timedelta(minutes=10)
OLD, NEW = version(1), version(2)
OLD_MODEL, NEW_MODEL = f"triage@{OLD}", f"triage@{NEW}"


def with_a_new_version(**adapters: Any) -> World:
    """Version 1 is served by two replicas, and the job of version 2 has just become Ready."""
    world = settled(*versions_of("triage", 1), replicas=2, adapters=adapters)
    world.jobs = versions_of("triage", 1, 2)
    world.step()
    return world


def with_a_canary(**adapters: Any) -> World:
    world = with_a_new_version(canary=CANARY, **adapters)
    world.answer(holds_it, holds_it)
    world.step()
    return world


def counted(new_errors: int, of: int, *, old_errors: int = 0) -> dict[str, Traffic]:
    """By each of the two proxies."""
    return {
        OLD_MODEL: Traffic(requests=500, errors=old_errors),
        NEW_MODEL: Traffic(requests=of, errors=new_errors),
    }


def targets(world: World, name: str = "triage") -> list[Target]:
    (route,) = [each for each in world.desired().routes if each.name == name]
    return route.targets


def loaded(world: World) -> set[str]:
    return {each.model for each in world.desired().adapters}


# Without a canary


def test_the_first_version_answers_at_once() -> None:
    world = World(given.adapterdeployment(), versions_of("triage", 1))
    assert states(world.step()) == {OLD: ("Promoted", 100)}
    assert world.desired().routes == [Route(name="triage", targets=[Target(model=OLD_MODEL)])]


def test_a_new_version_is_loaded_while_the_old_one_answers() -> None:
    world = with_a_new_version()
    assert states(world.deployment.status) == {OLD: ("Promoted", 100), NEW: ("Joining", 0)}
    assert loaded(world) == {OLD_MODEL, NEW_MODEL}
    assert targets(world) == [Target(model=OLD_MODEL)]


@pytest.mark.parametrize("says", [(holds_it, is_still_loading), (is_still_loading,) * 2])
def test_it_does_not_answer_until_every_replica_has_it(says: Iterable[Any]) -> None:
    world = with_a_new_version()
    world.answer(*says)
    assert states(world.step())[NEW] == ("Joining", 0)
    assert targets(world) == [Target(model=OLD_MODEL)]


def test_a_replica_that_cannot_start_holds_up_no_version() -> None:
    """It will hold the new one before it answers."""
    world = with_a_new_version()
    world.answer(holds_it)
    assert states(world.step())[NEW] == ("Promoted", 100)


def test_a_replica_that_is_not_ready_is_not_waited_for() -> None:
    world = with_a_new_version()
    world.answer(holds_it, holds_it)
    world.replicas.append(world.replica(is_still_loading, number=3, ready=False))
    assert states(world.step())[NEW] == ("Promoted", 100)


def test_then_it_takes_over_and_the_old_one_stands_by() -> None:
    world = with_a_new_version()
    world.answer(holds_it, holds_it)
    status = world.step()
    assert states(status) == {OLD: ("Standby", 0), NEW: ("Promoted", 100)}
    assert targets(world) == [Target(model=NEW_MODEL)]
    assert not is_ready(status)
    assert is_ready(world.settle())


@pytest.mark.parametrize(("keep", "kept"), [(0, {3}), (1, {2, 3}), (2, {1, 2, 3})])
def test_superseded_versions_stay_as_long_as_they_are_to(keep: int, kept: set[int]) -> None:
    world = settled(*versions_of("triage", 1, 2, 3), adapters={"keepVersions": keep})
    assert states(world.deployment.status).keys() == {version(each) for each in kept}
    assert states(world.deployment.status)[version(3)] == ("Promoted", 100)


def test_the_newest_left_answers_when_the_job_of_the_promoted_version_is_deleted() -> None:
    world = settled(*versions_of("triage", 1, 2))
    world.jobs = versions_of("triage", 1)
    assert states(world.step()) == {OLD: ("Promoted", 100)}
    assert loaded(world) == {OLD_MODEL}


def test_an_adapter_whose_last_job_is_deleted_is_gone() -> None:
    world = settled(*versions_of("triage", 1))
    world.jobs = []
    assert states(world.step()) == {}
    assert (loaded(world), world.desired().routes) == (set(), [])


def test_since_tells_when_a_version_came_into_its_state() -> None:
    world = settled(*versions_of("triage", 1))
    (before,) = world.deployment.status.adapters
    (after,) = world.settle(LATER).adapters
    assert after.since == before.since == "2026-01-01T12:00:00Z"


# Canaries


def test_with_a_canary_the_new_version_gets_a_part_first() -> None:
    world = with_a_canary()
    assert states(world.deployment.status) == {OLD: ("Promoted", 90), NEW: ("Canary", 10)}
    assert targets(world) == [
        Target(model=OLD_MODEL, weight=90),
        Target(model=NEW_MODEL, weight=10),
    ]


def test_the_very_first_version_is_no_canary() -> None:
    world = settled(*versions_of("triage", 1), adapters={"canary": CANARY})
    assert states(world.deployment.status) == {OLD: ("Promoted", 100)}


def test_a_canary_is_looked_at_again() -> None:
    wait = with_a_canary().plan().requeue_after
    assert wait is not None
    assert wait <= timedelta(seconds=5)


@pytest.mark.parametrize(
    ("minutes", "state"), [(0, "Canary"), (9.9, "Canary"), (10, "Promoted"), (99, "Promoted")]
)
def test_a_canary_without_faults_is_promoted_when_its_time_is_over(
    minutes: float, state: str
) -> None:
    world = with_a_canary()
    world.answer(holds_it, holds_it, traffic=counted(0, of=50))
    status = world.step(given.NOW + timedelta(minutes=minutes))
    assert states(status)[NEW][0] == state


@pytest.mark.parametrize(
    ("traffic", "state"),
    [
        (counted(1, of=10), "RolledBack"),
        (counted(1, of=9), "Canary"),
        (counted(1, of=100), "Canary"),
        (counted(2, of=100), "RolledBack"),
        (counted(2, of=100, old_errors=5), "Canary"),
        ({}, "Canary"),
    ],
    ids=[
        "20 requests in all",
        "18 are too few",
        "just as many as allowed",
        "more than allowed",
        "the old one is not better",
        "nobody asked",
    ],
)
def test_errors_beyond_those_of_the_old_version_roll_it_back_early(
    traffic: dict[str, Traffic], state: str
) -> None:
    world = with_a_canary()
    world.answer(holds_it, holds_it, traffic=traffic)
    assert states(world.step())[NEW][0] == state


def test_at_the_end_even_a_few_requests_are_enough_to_roll_it_back() -> None:
    world = with_a_canary()
    world.answer(holds_it, holds_it, traffic=counted(1, of=2))
    assert states(world.step(LATER))[NEW] == ("RolledBack", 0)


def test_a_canary_that_makes_its_replicas_unready_is_rolled_back() -> None:
    world = with_a_canary()
    world.answer(holds_it, holds_it, traffic=counted(25, of=25))
    world.replicas[1] = world.replica(number=2, ready=False)
    assert states(world.step())[NEW] == ("RolledBack", 0)


def test_more_replicas_leave_a_canary_what_it_is() -> None:
    world = with_a_canary()
    world.change(replicas=3, adapters={"canary": CANARY})
    assert states(world.step()) == {OLD: ("Promoted", 90), NEW: ("Canary", 10)}


def test_a_canary_is_not_promoted_before_it_is_ready_everywhere() -> None:
    world = with_a_canary()
    world.change(replicas=3, adapters={"canary": CANARY})
    world.answer(holds_it, holds_it, is_still_loading)
    assert states(world.step(LATER))[NEW] == ("Canary", 10)
    world.answer(holds_it, holds_it, holds_it)
    assert states(world.step(LATER))[NEW] == ("Promoted", 100)


def rolled_back(**adapters: Any) -> World:
    world = with_a_canary(**adapters)
    world.answer(holds_it, holds_it, traffic=counted(50, of=50))
    world.step()
    return world


def test_a_version_that_was_rolled_back_is_unloaded_and_remembered() -> None:
    world = rolled_back()
    assert states(world.deployment.status) == {OLD: ("Promoted", 100), NEW: ("RolledBack", 0)}
    assert (loaded(world), targets(world)) == ({OLD_MODEL}, [Target(model=OLD_MODEL)])
    status = world.settle(LATER + timedelta(days=1))
    assert states(status)[NEW] == ("RolledBack", 0)
    assert is_ready(status)


def test_nobody_waits_for_a_version_that_was_rolled_back() -> None:
    world = rolled_back()
    world.step()
    world.answer(holds_it)
    assert condition(world.step(), "Ready").message == "1 of 2 replicas serve: triage."


def test_a_pin_to_a_version_that_was_rolled_back_overrules_that() -> None:
    world = rolled_back()
    world.settle()
    pins = [{"name": "triage", "version": NEW}]
    world.change(replicas=2, adapters={"canary": CANARY, "pins": pins})
    assert states(world.step())[NEW] == ("Joining", 0)
    assert states(world.settle()) == {OLD: ("Standby", 0), NEW: ("Promoted", 100)}


def test_the_version_after_one_that_was_rolled_back_gets_its_own_chance() -> None:
    world = rolled_back()
    world.jobs = versions_of("triage", 1, 2, 3)
    world.settle()
    assert states(world.deployment.status) == {
        OLD: ("Promoted", 90),
        NEW: ("RolledBack", 0),
        version(3): ("Canary", 10),
    }


# Pins


def test_a_pin_takes_the_name_back_at_once_where_the_version_is_loaded() -> None:
    world = settled(*versions_of("triage", 1, 2), replicas=2)
    world.change(replicas=2, adapters={"pins": [{"name": "triage", "version": OLD}]})
    assert states(world.step()) == {OLD: ("Promoted", 100), NEW: ("Standby", 0)}


def test_a_pin_promotes_a_canary_at_once() -> None:
    world = with_a_canary()
    pins = [{"name": "triage", "version": NEW}]
    world.change(replicas=2, adapters={"canary": CANARY, "pins": pins})
    assert states(world.step())[NEW] == ("Promoted", 100)


def test_a_pin_to_a_version_that_is_not_there_changes_nothing() -> None:
    pins = [{"name": "triage", "version": "0" * 12}, {"name": "other", "version": OLD}]
    world = with_a_canary(pins=pins)
    assert states(world.deployment.status) == {OLD: ("Promoted", 90), NEW: ("Canary", 10)}


def test_a_pin_holds_against_newer_versions() -> None:
    pins = [{"name": "triage", "version": OLD}]
    world = settled(*versions_of("triage", 1, 2, 3), adapters={"pins": pins, "keepVersions": 0})
    assert states(world.deployment.status) == {OLD: ("Promoted", 100)}


def test_what_was_rolled_back_is_not_promoted_when_the_old_version_goes() -> None:
    world = rolled_back()
    world.jobs = versions_of("triage", 2)
    assert states(world.step()) == {NEW: ("RolledBack", 0)}
    assert world.desired().routes == []
