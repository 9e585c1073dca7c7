"""The sidecar brings vLLM and the proxy of its pod to the desired state, whatever they do."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from tunesmith.api.digests import base_model_digest
from tunesmith.api.serving_contract import Traffic
from tunesmith.sidecar import replica as replica_module
from tunesmith.sidecar.main import BUSY_SECONDS, keep_in_step
from tunesmith.sidecar.preflight import Facts, examine
from tunesmith.sidecar.replica import AGAIN_SECONDS

from tests.unit.operator.adapters import DOWN, Adapter, Q, pair
from tests.unit.operator.serving_fakes import BASE, LONGEST_STEP_SECONDS, Pod, pod

__all__ = ["pod"]


def spoiled(adapter: Adapter) -> None:
    """Of another base model."""
    adapter.tensors = pair(Q, out=9) | pair(DOWN)


# Before vLLM starts


async def test_vllm_may_start_when_every_adapter_was_examined(pod: Pod) -> None:
    pod.want(pod.adapter("one"), pod.adapter("two"))
    await pod.replica.step()
    assert not pod.replica.started
    await pod.settle()
    assert pod.replica.started
    assert pod.module_names() == ["one@1", "two@1"]


async def test_without_adapters_it_may_start_at_once(pod: Pod) -> None:
    pod.want()
    await pod.replica.step()
    assert pod.replica.started
    assert pod.modules() == []


async def test_without_a_desired_state_it_may_not_start(pod: Pod) -> None:
    await pod.settle()
    assert not pod.replica.started


async def test_a_bad_adapter_is_refused_and_touches_nothing_else(pod: Pod) -> None:
    await pod.serve(pod.adapter("good"), pod.adapter("bad", spoil=spoiled))
    assert pod.module_names() == ["good@1"]
    assert pod.states() == {"good@1": "Ready", "bad@1": "Refused"}
    assert pod.told("bad@1").reason == "WrongShape"
    assert "bad@1" not in {model for _, model in pod.vllm.told}
    assert pod.proxy.names == {BASE, "good", "good@1"}
    assert pod.proxy.complete


async def test_a_rank_beyond_the_bound_is_refused(pod: Pod) -> None:
    pod.want(pod.adapter("large"), max_lora_rank=1)
    await pod.settle()
    assert pod.told("large@1").reason == "RankTooLarge"


async def test_another_base_than_the_one_it_was_judged_on_is_refused_before_vllm_sees_it(
    pod: Pod,
) -> None:
    right = pod.adapter("right", base=base_model_digest(pod.base))
    wrong = pod.adapter("wrong", base="sha256:" + "0" * 64)
    await pod.serve(right, wrong)
    assert pod.states() == {"right@1": "Ready", "wrong@1": "Refused"}
    assert pod.told("wrong@1").reason == "WrongBaseModel"
    assert "wrong@1" not in {model for _, model in pod.vllm.told}


async def test_a_base_model_that_vllm_has_yet_to_download_is_not_waited_for(pod: Pod) -> None:
    base = {"name": BASE, "path": None, "hub_folder": str(pod.root / "hub")}
    pod.want(pod.adapter("one"), base=base)
    await pod.settle()
    assert pod.module_names() == []
    snapshot = pod.root / "hub" / "snapshots" / "main"
    pod.start_vllm()
    snapshot.parent.mkdir(parents=True)
    pod.base.rename(snapshot)
    await pod.settle()
    assert pod.states() == {"one@1": "Ready"}
    assert pod.module_names() == ["one@1"]


async def test_without_a_base_model_that_can_be_read_vllm_starts_to_say_so(pod: Pod) -> None:
    base = {"name": BASE, "path": str(pod.root / "nothing")}
    pod.want(pod.adapter("one"), base=base)
    await pod.settle()
    assert pod.replica.started
    assert pod.module_names() == []
    assert pod.states() == {"one@1": "Loading"}


async def test_vllm_may_start_to_end_a_download_that_was_broken_off(pod: Pod) -> None:
    snapshot = pod.root / "hub" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    base = {"name": BASE, "path": None, "hub_folder": str(pod.root / "hub")}
    pod.want(pod.adapter("one"), base=base)
    await pod.settle()
    assert pod.replica.started
    assert pod.module_names() == []


async def test_files_that_change_after_they_were_examined_have_not_passed(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = threading.Event()

    def slow(*arguments: Any) -> Facts:
        found = examine(*arguments)
        assert changed.wait(LONGEST_STEP_SECONDS)
        return found

    monkeypatch.setattr(replica_module, "examine", slow)
    pod.want(pod.adapter("one"))
    await pod.replica.step()
    await asyncio.sleep(0.1)
    pod.files("one", spoiled)
    await pod.replica.step()
    changed.set()
    await pod.settle()
    assert pod.states() == {"one@1": "Refused"}
    assert pod.module_names() == []


# Loaded, proven, routed


async def test_an_adapter_that_joins_is_loaded_proven_and_routed(pod: Pod) -> None:
    await pod.serve()
    assert pod.proxy.names == {BASE}
    pod.want(pod.adapter("one"))
    await pod.settle()
    assert pod.vllm.told == [("load", "one@1"), ("ask", BASE), ("ask", "one@1")]
    assert pod.proxy.names == {BASE, "one", "one@1"}
    assert pod.states() == {"one@1": "Ready"}
    assert pod.module_names() == ["one@1"], "the next start has it from the beginning"


async def test_what_the_proxy_was_not_told_is_not_ready(pod: Pod) -> None:
    await pod.serve()
    pod.proxy.is_up = False
    pod.want(pod.adapter("one"))
    await pod.settle()
    assert pod.vllm.commands("ask") == [BASE, "one@1"]
    assert pod.states() == {"one@1": "Loading"}
    pod.proxy.is_up = True
    await pod.settle()
    assert pod.states() == {"one@1": "Ready"}


async def test_what_vllm_started_with_is_proven_as_well(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    assert pod.vllm.told == [("ask", BASE), ("ask", "one@1")]
    assert pod.states() == {"one@1": "Ready"}


async def test_the_pod_is_complete_only_when_all_is_proven(pod: Pod) -> None:
    pod.want(pod.adapter("one"))
    await pod.settle()
    pod.start_vllm()
    await pod.replica.step()
    assert not pod.proxy.complete
    assert not pod.replica.report().serving
    await pod.settle()
    assert pod.proxy.complete
    assert pod.replica.report().serving


async def test_an_adapter_without_effect_is_failed_and_not_routed(pod: Pod) -> None:
    pod.vllm.without_effect = {"none@1"}
    await pod.serve(pod.adapter("none"), pod.adapter("some"))
    assert pod.states() == {"none@1": "Failed", "some@1": "Ready"}
    assert "do not differ" in pod.told("none@1").message
    assert pod.proxy.names == {BASE, "some", "some@1"}


async def test_answers_that_are_no_numbers_are_failed(pod: Pod) -> None:
    pod.vllm.not_finite = {"nan@1"}
    await pod.serve(pod.adapter("nan"))
    assert pod.states() == {"nan@1": "Failed"}
    assert pod.proxy.names == {BASE}


async def test_what_vllm_refuses_is_left_out_of_its_next_start_and_tried_again(pod: Pod) -> None:
    good = pod.adapter("good")
    await pod.serve(good)
    pod.vllm.refused = {"odd@1"}
    pod.want(good, pod.adapter("odd"))
    await pod.settle()
    assert pod.states() == {"good@1": "Ready", "odd@1": "Failed"}
    assert (pod.told("odd@1").reason, pod.told("odd@1").message) == (
        "VllmRefused",
        "it does not fit",
    )
    assert pod.module_names() == ["good@1"]
    pod.vllm.refused = set()
    pod.clock.now += AGAIN_SECONDS * 0.7
    await pod.settle()
    assert pod.vllm.commands("load") == ["odd@1"]
    pod.clock.now += AGAIN_SECONDS * 0.6
    await pod.settle()
    assert pod.states() == {"good@1": "Ready", "odd@1": "Ready"}
    assert pod.module_names() == ["good@1", "odd@1"]


async def test_mended_files_heal(pod: Pod) -> None:
    bad = pod.adapter("one", spoil=spoiled)
    mended = pod.adapter("one")
    pod.files("one", spoiled)
    await pod.serve(mended)
    assert pod.told("one@1").reason in {"DigestMismatch", "WrongShape"}
    assert bad.digest != mended.digest
    pod.files("one")
    pod.clock.now += AGAIN_SECONDS
    await pod.settle()
    assert pod.states() == {"one@1": "Ready"}


async def test_files_that_are_spoiled_later_are_noticed(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"), pod.adapter("two"))
    pod.files("one", spoiled)
    await pod.settle()
    assert pod.states() == {"one@1": "Refused", "two@1": "Ready"}
    assert pod.proxy.names == {BASE, "two", "two@1"}
    assert pod.module_names() == ["two@1"]


async def test_a_load_that_hangs_delays_no_other(pod: Pod) -> None:
    await pod.serve()
    pod.vllm.hanging = {"slow@1"}
    pod.want(pod.adapter("slow"), *(pod.adapter(f"a{each}") for each in range(4)))
    await pod.settle()
    assert pod.states() == {"slow@1": "Loading"} | {f"a{each}@1": "Ready" for each in range(4)}
    assert "a3" in pod.proxy.names
    assert "slow" not in pod.proxy.names
    assert not pod.replica.is_settled()


async def test_a_name_that_is_loaded_from_elsewhere_is_loaded_again(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    moved = pod.adapter("other").model_copy(update={"model": "one@1"})
    pod.want(moved)
    await pod.settle()
    assert pod.vllm.told[-3:] == [("unload", "one@1"), ("load", "one@1"), ("ask", "one@1")]
    assert pod.vllm.loaded == {"one@1": moved.path}
    assert pod.states() == {"one@1": "Ready"}


async def test_a_name_that_now_stands_for_bad_files_is_refused(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    bad = pod.adapter("bad", spoil=spoiled).model_copy(update={"model": "one@1"})
    pod.want(bad)
    await pod.settle()
    assert pod.states() == {"one@1": "Refused"}
    assert pod.proxy.names == {BASE}


async def test_a_setback_of_other_files_holds_nothing_back(pod: Pod) -> None:
    bad = pod.adapter("bad", spoil=spoiled).model_copy(update={"model": "one@1"})
    await pod.serve(bad)
    assert pod.states() == {"one@1": "Refused"}
    pod.want(pod.adapter("good").model_copy(update={"model": "one@1"}))
    await pod.settle()
    assert pod.states() == {"one@1": "Ready"}


async def test_the_time_that_vllm_took_to_load_is_told_by_itself(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pod.serve(pod.adapter("one"))
    load = pod.vllm.load

    async def slow(model: str, path: str) -> None:
        pod.clock.now += 2
        await load(model, path)

    monkeypatch.setattr(pod.vllm, "load", slow)
    pod.want(pod.adapter("one"), pod.adapter("two"))
    await pod.settle()
    assert pod.told("one@1").load_seconds is None, "it was there from the start"
    assert pod.told("two@1").load_seconds == pytest.approx(2)


async def test_the_time_to_the_first_answer_is_told(pod: Pod) -> None:
    pod.want(pod.adapter("one"))
    await pod.settle()
    pod.clock.now += 3
    pod.start_vllm()
    await pod.settle()
    assert pod.told("one@1").seconds == pytest.approx(3)


# Leaving


async def test_who_leaves_is_routed_no_more_and_then_unloaded(pod: Pod) -> None:
    stays = pod.adapter("stays")
    await pod.serve(stays, pod.adapter("leaves"))
    pod.proxy.traffic = {"leaves@1": Traffic(requests=3, in_flight=1)}
    pod.want(stays)
    await pod.step()
    assert pod.proxy.names == {BASE, "stays", "stays@1"}
    assert pod.module_names() == ["stays@1"]
    await pod.settle()
    assert pod.vllm.commands("unload") == [], "somebody still waits for an answer"
    assert pod.replica.report().leaving == ["leaves@1"]
    pod.proxy.traffic = {"leaves@1": Traffic(requests=3, in_flight=0)}
    await pod.settle()
    assert pod.vllm.commands("unload") == ["leaves@1"]
    assert pod.replica.report().leaving == []


async def test_nothing_is_unloaded_while_the_proxy_does_not_take_the_routes(pod: Pod) -> None:
    await pod.serve(pod.adapter("leaves"))
    pod.proxy.is_up = False
    pod.want()
    await pod.settle()
    assert pod.vllm.commands("unload") == []
    pod.proxy.is_up = True
    await pod.settle()
    assert pod.vllm.commands("unload") == ["leaves@1"]


async def test_nothing_is_unloaded_while_the_proxy_does_not_tell_who_is_asked(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    pod.proxy.traffic = {"one@1": Traffic(in_flight=1)}
    pod.want()
    await pod.step()
    assert pod.proxy.names == {BASE}
    pod.proxy.is_up = False
    await pod.settle()
    assert pod.vllm.commands("unload") == []
    assert pod.replica.report().traffic == {}


# Its own steps


async def test_the_name_of_the_base_model_is_told(pod: Pod) -> None:
    assert pod.replica.report().base == ""
    await pod.serve()
    assert pod.replica.report().base == BASE


async def test_what_cannot_be_done_yet_is_not_tried_without_a_pause(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "time", time)
    base = {"name": BASE, "path": None, "hub_folder": str(pod.root / "hub")}
    pod.want(pod.adapter("one"), base=base)
    steps = 0
    step = pod.replica.step

    async def counted() -> None:
        nonlocal steps
        steps += 1
        # As long as a look at vLLM takes: what the step set going ends meanwhile.
        await step()
        await asyncio.sleep(0.001)

    monkeypatch.setattr(pod.replica, "step", counted)
    loop = asyncio.create_task(keep_in_step(pod.replica))
    await asyncio.sleep(4 * BUSY_SECONDS)
    loop.cancel()
    assert 1 < steps <= 8


async def test_a_change_of_the_files_is_seen_at_once(pod: Pod) -> None:
    await pod.serve()
    pod.replica.wake.clear()
    assert not pod.replica.is_due()
    pod.want(pod.adapter("one"))
    assert pod.replica.is_due()


async def test_several_steps_at_once_bring_no_adapter_twice(pod: Pod) -> None:
    await pod.serve()
    pod.want(pod.adapter("one"))
    for _ in range(5):
        await pod.replica.step()
        await asyncio.sleep(0)
    await pod.settle()
    assert pod.vllm.commands("load") == ["one@1"]
