"""What vLLM is told: bounds for adapters, the base model, the user's own arguments."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.serving_contract import Grant

from tests.unit.operator import given
from tests.unit.operator.serving_given import World, ready_job, settled

GPU = {"gpus": 1, "memory": "64Gi"}


def world(*ranks: int, **spec: Any) -> World:
    """Served: an adapter of each rank."""
    jobs = [ready_job(f"a{number}", number, rank=rank) for number, rank in enumerate(ranks, 1)]
    return settled(*jobs, **spec)


def test_adapters_are_no_options_of_the_server() -> None:
    assert "lora-modules" not in world(16, 16).options()
    assert world().options()["enable-lora"] is True


def test_vllm_opens_no_pickle_and_runs_no_code_of_a_model() -> None:
    options = world().options()
    assert options["load-format"] == "safetensors"
    assert options["trust-remote-code"] is False


def test_vllm_listens_on_loopback_only() -> None:
    assert world().options()["host"] == "127.0.0.1"


@pytest.mark.parametrize(("rank", "allowed"), [(4, 16), (16, 16), (24, 32), (512, 512), (600, 512)])
def test_the_rank_is_rounded_up_to_what_vllm_accepts(rank: int, allowed: int) -> None:
    assert world(rank).options()["max-lora-rank"] == allowed


@pytest.mark.parametrize(("adapters", "slots"), [(0, 4), (2, 4), (3, 8), (8, 16), (50, 16)])
def test_slots_are_twice_the_adapters_within_bounds(adapters: int, slots: int) -> None:
    jobs = [ready_job(f"a{each}", each + 1) for each in range(adapters)]
    fresh = World(given.adapterdeployment(resources=GPU), jobs)
    fresh.step()
    assert fresh.options()["max-loras"] == slots


def test_on_the_cpu_a_slot_more_is_made_that_stays_free() -> None:
    assert world(16).options()["max-loras"] == 4 + 1
    assert world(16, resources=GPU).options()["max-loras"] == 4


@pytest.mark.parametrize("resources", [{"gpus": 0}, GPU], ids=["CPU", "GPU"])
def test_slots_and_rank_never_shrink(resources: given.Raw) -> None:
    serving = world(64, 16, 16, resources=resources)
    before = serving.options()
    serving.jobs = []
    serving.settle()
    assert serving.options() == before


def test_explicit_limits_win_over_running_ones() -> None:
    serving = world(64, 16, 16, resources=GPU)
    serving.change(resources=GPU, server={"maxLoras": 2, "maxLoraRank": 8, "maxCpuLoras": 7})
    serving.settle()
    options = serving.options()
    assert (options["max-loras"], options["max-lora-rank"]) == (2, 8)
    assert options["max-cpu-loras"] == 7


@pytest.mark.parametrize(
    ("memory", "rank", "kept"),
    [(None, 16, 16), ("64Gi", 16, 204), ("64Gi", 64, 51), ("2Gi", 16, 6)],
)
def test_as_many_adapters_are_kept_in_memory_as_fit_into_a_quarter(
    memory: str | None, rank: int, kept: int
) -> None:
    resources = {"gpus": 1, **({"memory": memory} if memory else {})}
    assert world(rank, resources=resources).options()["max-cpu-loras"] == kept


def test_a_server_that_leaves_the_gpu_keeps_a_slot() -> None:
    serving = settled(resources={"gpus": 1}, server={"maxLoras": 1})
    serving.change(resources={"gpus": 0})
    server = serving.step().server
    assert server is not None
    assert server.max_loras == 1
    assert serving.options()["max-loras"] == 1 + 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.95", 0.95),
        ("7", 7),
        ("1e3", 1000.0),
        ("true", True),
        ("True", True),
        ("False", False),
    ],
)
def test_numbers_and_truth_values_among_the_arguments_are_written_as_such(
    text: str, value: float
) -> None:
    found = argument(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["bfloat16", '{"level": 0}', "[1, 2]", '"7"', "null", "yes", "0x10", "1:30", "", "{", "a: b"],
)
def test_all_other_arguments_stay_the_text_that_they_are(text: str) -> None:
    assert argument(text) == text


def argument(text: str) -> object:
    """As vLLM finds it in its file."""
    return world(server={"arguments": {"compilation-config": text}}).options()["compilation-config"]


def test_several_gpus_share_the_model() -> None:
    assert world(resources={"gpus": 4}).options()["tensor-parallel-size"] == 4
    assert "tensor-parallel-size" not in world(resources=GPU).options()


def test_a_base_model_of_the_hub_is_found_where_vllm_downloads_it() -> None:
    serving = World(given.adapterdeployment(baseModel={"uri": "hf://meta/Llama-8B@main"}))
    serving.step()
    base = serving.desired().base
    assert (base.name, base.path) == ("Llama-8B", None)
    assert base.hub_folder == "/cache/huggingface/hub/models--meta--Llama-8B"
    options = serving.options()
    assert (options["model"], options["revision"]) == ("meta/Llama-8B", "main")


def test_a_base_model_on_a_claim_is_a_path_and_never_looked_for_elsewhere() -> None:
    serving = world()
    assert serving.desired().base.path == serving.options()["model"] == "/mnt/claims/models/smol"
    (vllm,) = serving.template()["spec"]["containers"]
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in vllm["env"]


def test_grants_reach_the_proxy() -> None:
    access = {"secretRef": {"name": "keys"}, "grants": [{"client": "ann", "models": ["tri*"]}]}
    assert world(access=access).desired().grants == [Grant(client="ann", models=["tri*"])]
    assert world(access={"secretRef": {"name": "keys"}}).desired().grants is None
