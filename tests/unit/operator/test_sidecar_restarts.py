"""What the sidecar does when vLLM, the proxy or itself ends and starts again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith.api.digests import base_model_digest
from tunesmith.api.serving_contract import DESIRED_FILE

from tests.unit.operator.serving_fakes import BASE, Pod, pod

__all__ = ["pod"]


async def test_after_a_restart_of_vllm_everything_is_proven_again(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    pod.start_vllm(up=False)
    await pod.step()
    assert not pod.replica.report().serving
    assert pod.states() == {"one@1": "Loading"}
    pod.vllm.is_up = True
    pod.vllm.told.clear()
    await pod.replica.step()
    assert not pod.replica.report().serving
    assert not pod.proxy.complete
    await pod.settle()
    assert pod.vllm.told == [("ask", BASE), ("ask", "one@1")]
    assert pod.replica.report().serving
    assert pod.proxy.names == {BASE, "one", "one@1"}
    assert pod.replica.report().starts == 2


async def test_after_an_end_before_it_was_up_it_starts_bare_and_gets_them_one_by_one(
    pod: Pod,
) -> None:
    pod.want(pod.adapter("one"), pod.adapter("two"))
    await pod.settle()
    pod.start_vllm(up=False)
    await pod.step()
    pod.start_vllm(up=False)
    await pod.step()
    assert pod.module_names() == []
    pod.start_vllm()
    pod.vllm.refused = {"two@1"}
    await pod.settle()
    assert sorted(pod.vllm.commands("load")) == ["one@1", "two@1"]
    assert pod.states() == {"one@1": "Ready", "two@1": "Failed"}
    assert pod.module_names() == ["one@1"], "the next start has what is known to be good"


async def test_a_base_that_was_replaced_serves_nothing_that_was_judged_on_another(pod: Pod) -> None:
    """vLLM reads it when it starts anew, whatever had passed before."""
    await pod.serve(pod.adapter("one", base=base_model_digest(pod.base)))
    weights = next(pod.base.glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    pod.start_vllm()
    await pod.settle()
    assert pod.told("one@1").reason == "WrongBaseModel"
    assert pod.proxy.names == {BASE}


async def test_files_that_were_away_for_a_moment_are_part_of_the_next_start(pod: Pod) -> None:
    adapter = pod.adapter("one")
    await pod.serve(adapter)
    folder = Path(adapter.path)
    folder.rename(away := folder.with_name("away"))
    await pod.settle()
    assert pod.states() == {"one@1": "Ready"}, "vLLM still holds it"
    assert pod.module_names() == []
    away.rename(folder)
    await pod.settle()
    assert pod.module_names() == ["one@1"]


async def test_while_vllm_is_too_busy_to_answer_no_name_is_taken_away(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    tables = len(pod.proxy.tables)
    pod.vllm.is_up = False
    await pod.settle()
    assert len(pod.proxy.tables) == tables
    pod.vllm.is_up = True
    await pod.settle()
    assert len(pod.proxy.tables) == tables
    assert pod.vllm.commands("ask") == [BASE, "one@1"], "nothing is proven twice"


async def test_what_a_bare_vllm_does_not_hold_is_not_routed(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    pod.start_vllm()
    pod.vllm.loaded = {}
    await pod.replica.step()
    assert pod.proxy.names == {BASE}
    await pod.settle()
    assert pod.proxy.names == {BASE, "one", "one@1"}


async def test_a_sidecar_that_restarts_while_vllm_is_busy_takes_no_name_away(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    tables = len(pod.proxy.tables)
    pod.vllm.is_up = False
    pod.restart_sidecar()
    await pod.settle()
    assert len(pod.proxy.tables) == tables
    assert pod.proxy.names == {BASE, "one", "one@1"}


async def test_a_sidecar_that_restarts_unloads_nothing_that_is_still_routed(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pod.serve(pod.adapter("one"))
    pod.want()
    pod.restart_sidecar()
    routed_at_unload: list[set[str]] = []
    unload = pod.vllm.unload

    async def watched(model: str) -> None:
        routed_at_unload.append(pod.proxy.names)
        await unload(model)

    monkeypatch.setattr(pod.vllm, "unload", watched)
    await pod.settle()
    assert pod.vllm.commands("unload") == ["one@1"]
    assert routed_at_unload == [{BASE}]


async def test_a_restart_of_the_sidecar_forgets_and_disturbs_nothing(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"), pod.adapter("two"))
    tables, told = len(pod.proxy.tables), list(pod.vllm.told)
    pod.restart_sidecar()
    await pod.settle()
    assert pod.states() == {"one@1": "Ready", "two@1": "Ready"}
    assert pod.replica.report().serving
    assert (len(pod.proxy.tables), pod.vllm.told) == (tables, told)


async def test_a_proxy_that_was_restarted_gets_its_routes(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    pod.proxy.tables.clear()
    await pod.step()
    assert pod.proxy.names == {BASE, "one", "one@1"}
    assert pod.proxy.complete


# Files that cannot be read


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"base": {}}', b"\xff\xfe"])
async def test_an_unreadable_desired_state_changes_nothing(pod: Pod, content: bytes) -> None:
    await pod.serve(pod.adapter("one"))
    before = pod.replica.report()
    (pod.places.configuration / DESIRED_FILE).write_bytes(content)
    await pod.settle()
    assert pod.replica.report() == before
    (pod.places.configuration / DESIRED_FILE).unlink()
    await pod.settle()
    assert pod.replica.report() == before


async def test_a_spoiled_memory_is_no_memory(pod: Pod) -> None:
    await pod.serve(pod.adapter("one"))
    pod.places.memory.write_text("{")
    pod.restart_sidecar()
    await pod.settle()
    assert pod.states() == {"one@1": "Ready"}
