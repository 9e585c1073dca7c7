"""The queue: one worker per key, nothing lost, one bad object harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

import pytest
from tunesmith.kube.key import Key
from tunesmith.kube.workqueue import (
    LONGEST_RETRY_SECONDS,
    Lane,
    Pass,
    PassFailed,
    WorkQueue,
    retry_delay,
)

A, B = Key("FineTuneJob", "team", "a"), Key("FineTuneJob", "team", "b")


async def run_until(queue: WorkQueue, done: Callable[[], bool]) -> None:
    running = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_key_that_waits_is_not_added_twice() -> None:
    passes: list[Key] = []

    async def reconcile(key: Key) -> Pass:
        passes.append(key)
        return Pass()

    queue = WorkQueue(reconcile, 4)
    for key in (A, A, B, A):
        queue.add(key)
    await run_until(queue, lambda: len(passes) == 2)
    await asyncio.sleep(0.02)
    assert sorted(passes) == [A, B]


async def test_a_key_is_worked_on_once_at_a_time_and_again_if_it_changed_meanwhile() -> None:
    passes, together, most = 0, 0, 0

    async def reconcile(key: Key) -> Pass:
        nonlocal passes, together, most
        together += 1
        most = max(most, together)
        if passes == 0:
            queue.add(key)
            queue.add(key)
        await asyncio.sleep(0.01)
        together -= 1
        passes += 1
        return Pass()

    queue = WorkQueue(reconcile, 4)
    queue.add(A)
    await run_until(queue, lambda: passes == 2)
    assert most == 1


async def test_an_object_that_fails_is_tried_again_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunesmith.kube.workqueue.FIRST_RETRY_SECONDS", 0.01)
    seen: list[Key] = []

    async def reconcile(key: Key) -> Pass:
        seen.append(key)
        if key == A and seen.count(A) < 3:
            raise RuntimeError("poison")
        return Pass()

    queue = WorkQueue(reconcile, 1)
    queue.add(A)
    queue.add(B)
    await run_until(queue, lambda: seen.count(A) == 3)
    assert B in seen


async def test_a_requeue_comes_by_itself_and_the_earlier_of_two_wins() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> Pass:
        seen.append(key)
        return Pass(requeue_after=0.01 if len(seen) < 3 else None)

    queue = WorkQueue(reconcile, 1)
    queue.add_after(A, 60)
    queue.add_after(A, 0.01)
    await run_until(queue, lambda: len(seen) == 3)


async def test_what_is_new_goes_before_what_is_looked_at_again() -> None:
    passes: list[Key] = []

    async def reconcile(key: Key) -> Pass:
        passes.append(key)
        return Pass()

    queue = WorkQueue(reconcile, 1)
    finished = [Key("FineTuneJob", "team", f"finished-{number}") for number in range(5)]
    for key in finished:
        queue.add(key, Lane.ROUTINE)
    queue.add(finished[-1])
    queue.add(A, Lane.NEW)
    await run_until(queue, lambda: len(passes) == 6)
    await asyncio.sleep(0.02)
    assert passes == [A, finished[-1], *finished[:-1]]


def test_the_pause_grows_and_stays_bounded() -> None:
    assert retry_delay(1) < retry_delay(4) < retry_delay(100) <= LONGEST_RETRY_SECONDS * 1.25


async def test_a_reason_that_tells_all_is_logged_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    passes = 0

    async def reconcile(key: Key) -> Pass:
        nonlocal passes
        passes += 1
        raise PassFailed("422: spec.replicas: Invalid value", "Http422")

    queue = WorkQueue(reconcile, 1)
    queue.add(A)
    await run_until(queue, lambda: passes == 1)
    (record,) = caplog.records
    assert "422: spec.replicas: Invalid value; 1 in a row, again in" in record.getMessage()
    assert record.exc_info is None


async def test_one_tenants_thousand_objects_keep_no_other_waiting() -> None:
    passes: list[Key] = []

    async def reconcile(key: Key) -> Pass:
        passes.append(key)
        if len(passes) == 10:
            queue.add(late, Lane.NEW)
        return Pass()

    queue = WorkQueue(reconcile, 1)
    crowd = [Key("FineTuneJob", "crowd", f"job-{number}") for number in range(1000)]
    early, late = Key("FineTuneJob", "team", "early"), Key("FineTuneJob", "team", "late")
    for key in (*crowd, early):
        queue.add(key, Lane.NEW)
    await run_until(queue, lambda: len(passes) == 1002)
    assert passes.index(early) <= 1
    assert passes.index(late) <= 12
    assert [key for key in passes if key.namespace == "crowd"] == crowd


async def test_pods_that_do_not_answer_keep_nobody_from_being_worked_on() -> None:
    silent = [Key("FineTuneJob", "team", f"silent-{number}") for number in range(50)]
    passes: list[Key] = []
    answered = asyncio.Event()

    async def reconcile(key: Key) -> Pass:
        if key in silent:
            with queue.aside():
                await answered.wait()
        passes.append(key)
        return Pass()

    queue = WorkQueue(reconcile, 1)
    for key in (*silent, A):
        queue.add(key)
    await run_until(queue, lambda: passes == [A])


async def test_when_pods_have_answered_there_are_as_many_workers_as_before() -> None:
    together, most, done = 0, 0, 0

    async def reconcile(key: Key) -> Pass:
        nonlocal together, most, done
        if key.name.startswith("early"):
            with queue.aside():
                await asyncio.sleep(0.001)
        else:
            together += 1
            most = max(most, together)
            await asyncio.sleep(0.005)
            together -= 1
        done += 1
        return Pass()

    queue = WorkQueue(reconcile, 2)
    for when in ("early", "late"):
        for number in range(20):
            queue.add(Key("FineTuneJob", "team", f"{when}-{number}"))
    await run_until(queue, lambda: done == 40)
    assert most == 2


async def test_a_pass_knows_nothing_of_the_one_that_made_room_for_it() -> None:
    about: ContextVar[str] = ContextVar("about", default="nobody")
    found: list[str] = []

    async def reconcile(key: Key) -> Pass:
        found.append(about.get())
        about.set(key.name)
        return Pass()

    queue = WorkQueue(reconcile, 1)
    queue.add(A)
    queue.add(B)
    await run_until(queue, lambda: len(found) == 2)
    assert found == ["nobody", "nobody"]
