"""The sidecar brings vLLM and the proxy of its pod to the desired state, whatever they do."""

from __future__ import annotations

import asyncio

import pytest
from tunesmith.api.serving_contract import Traffic
from tunesmith.sidecar.base_model import base_model_digest
from tunesmith.sidecar.replica import AGAIN_SECONDS

from tests.unit.operator.adapters import DOWN, Adapter, Q, pair
from tests.unit.operator.serving_fakes import BASE, Pod, pod

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
    pod.clock.now += AGAIN_SECONDS - 1
    await pod.settle()
    assert pod.vllm.commands("load") == ["odd@1"]
    pod.clock.now += 2
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


# Its own steps


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
