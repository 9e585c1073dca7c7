"""The memory planner: what it chooses, and what it says where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith.api.memory import ActivationCheckpointing, MemoryPlan, Optimizer, Parallelism
from tunesmith.api.method import Lora, Method
from tunesmith.api.trainer_contract import Hardware
from tunesmith.api.training import Training
from tunesmith.memory_planner.__main__ import main
from tunesmith.memory_planner.gpus import GIGABYTE
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.memory import GIB
from tunesmith.memory_planner.model_shape import ModelShape, UnknownModelError, read_shape
from tunesmith.memory_planner.planning import DoesNotFit, halve, plan_memory, unpredicted_plan
from tunesmith.memory_planner.request import PlanRequest

from tests.unit.operator.measured_peaks import FULL, OFF, PARTIAL

ORDER = (OFF, PARTIAL, FULL)


def asked(
    model: str | ModelShape = "Llama-3.1-8B",
    method: Method = Method.LORA,
    gpu_memory: int | None = 80 * GIB,
    *,
    gpus: int = 1,
    nodes: int = 1,
    lora: Lora | None = None,
    **training: Any,
) -> PlanRequest:
    return PlanRequest(
        shape=KNOWN_MODELS[model] if isinstance(model, str) else model,
        method=method,
        lora=lora or Lora(dropout=0.0),
        training=Training(**training),
        hardware=Hardware(gpus=gpus, nodes=nodes, gpu_memory_bytes=gpu_memory),
    )


def planned(*arguments: Any, **named: Any) -> MemoryPlan:
    plan = plan_memory(asked(*arguments, **named))
    assert isinstance(plan, MemoryPlan), plan
    return plan


def refused(*arguments: Any, **named: Any) -> str:
    plan = plan_memory(asked(*arguments, **named))
    assert isinstance(plan, DoesNotFit), plan
    return plan.message


# Plans


def test_an_80_gb_card_trains_an_8b_without_checkpointing() -> None:
    plan = planned()
    assert (plan.micro_batch_size, plan.gradient_accumulation) == (4, 2)
    assert plan.activation_checkpointing is OFF
    assert plan.optimizer is Optimizer.ADAMW
    assert plan.predicted_peak_bytes is not None
    assert plan.predicted_peak_bytes < 75 * GIB
    assert plan.predicted_tokens_per_second == pytest.approx(14_200, rel=0.05)


@pytest.mark.parametrize(("gigabytes", "expected"), [(80, OFF), (24, PARTIAL), (20, FULL)], ids=str)
def test_the_smaller_the_card_the_more_is_computed_again(
    gigabytes: int, expected: ActivationCheckpointing
) -> None:
    plan = planned(gpu_memory=gigabytes * GIB)
    assert plan.activation_checkpointing is expected


def test_a_micro_batch_is_no_larger_than_makes_the_card_faster() -> None:
    plan = planned("Llama-3.2-1B", batch_size=64)
    assert plan.micro_batch_size * 2048 <= 14_336
    assert plan.micro_batch_size == 4


def test_what_the_user_set_is_kept() -> None:
    plan = planned(
        micro_batch_size=2,
        activation_checkpointing=FULL,
        optimizer=Optimizer.ADAMW_8BIT,
    )
    assert (plan.micro_batch_size, plan.gradient_accumulation) == (2, 4)
    assert plan.activation_checkpointing is FULL
    assert plan.optimizer is Optimizer.ADAMW_8BIT


def test_what_the_user_set_is_refused_rather_than_changed() -> None:
    message = refused(micro_batch_size=8, activation_checkpointing=OFF)
    assert "needs 8" in message
    assert "training without microBatchSize, activationCheckpointing and optimizer" in message


@pytest.mark.parametrize("gigabytes", [48, 80])
def test_full_fine_tuning_keeps_its_moments_in_8_bits(gigabytes: int) -> None:
    plan = planned(method=Method.FULL, gpu_memory=gigabytes * GIB)
    assert plan.optimizer is Optimizer.PAGED_ADAMW_8BIT


def test_all_weights_cut_among_gpus_are_trained_with_the_optimiser_that_can_be_cut() -> None:
    plan = planned("Llama-3.1-70B", method=Method.FULL, gpus=16, batch_size=16)
    assert plan.parallelism is Parallelism.FSDP2
    assert plan.optimizer is Optimizer.ADAMW


def test_a_model_that_nobody_can_count_gets_the_most_careful_plan() -> None:
    plan = unpredicted_plan(Method.AUTO, Training(batch_size=16), Hardware(gpus=2))
    assert (plan.method, plan.micro_batch_size, plan.gradient_accumulation) == (Method.LORA, 1, 8)
    assert plan.activation_checkpointing is FULL
    assert plan.predicted_peak_bytes is None
    with pytest.raises(UnknownModelError, match="mamba"):
        read_shape({"model_type": "mamba"})


def test_the_batch_is_shared_among_gpus_and_nodes() -> None:
    plan = planned(gpus=2, nodes=2, batch_size=64)
    assert plan.processes == 4
    assert plan.micro_batch_size * plan.gradient_accumulation * plan.processes == 64
    assert plan.parallelism is Parallelism.DDP


def test_more_gpus_than_sequences_take_one_each() -> None:
    plan = planned(gpus=16, batch_size=8)
    assert (plan.micro_batch_size, plan.gradient_accumulation) == (1, 1)


def test_a_model_that_no_gpu_holds_is_cut() -> None:
    plan = planned("Llama-3.1-70B", gpus=8)
    assert plan.method is Method.LORA
    assert plan.parallelism is Parallelism.FSDP2


def test_a_batch_that_cannot_be_shared_is_refused_with_one_that_can() -> None:
    with pytest.raises(ValueError, match="batchSize 8 cannot be divided among 3 GPUs: use 6 or 9"):
        plan_memory(asked(gpus=3))


def test_a_micro_batch_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="use one of 4, 2, 1, or leave it out"):
        plan_memory(asked(gpus=2, batch_size=8, micro_batch_size=8))


def test_target_modules_that_the_model_lacks_are_named_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="c_attn; it has q_proj, k_proj"):
        plan_memory(asked(lora=Lora(target_modules=["c_attn"])))


def test_without_knowledge_of_the_gpu_the_plan_is_careful_and_predicts_no_speed() -> None:
    plan = planned(gpu_memory=None)
    assert plan.activation_checkpointing is FULL
    assert plan.micro_batch_size * 2048 <= 4096
    assert plan.predicted_tokens_per_second is None


def test_on_the_cpu_the_pods_memory_decides() -> None:
    hardware = Hardware(gpus=0, memory_bytes=3 * GIB)
    small = replace(asked("SmolLM2-135M"), hardware=hardware, bytes_per_value=4)
    plan = plan_memory(small)
    assert isinstance(plan, MemoryPlan)
    assert plan.activation_checkpointing is FULL
    roomy = replace(small, hardware=Hardware(gpus=0))
    assert plan_memory(roomy).activation_checkpointing is OFF  # type: ignore[union-attr]
    tight = replace(small, hardware=Hardware(gpus=0, memory_bytes=GIB))
    message = plan_memory(tight).message  # type: ignore[union-attr]
    assert "1.0 GiB of the pod" in message


# Auto


@pytest.mark.parametrize("model", ["Llama-2-7B", "Mistral-7B", "Qwen2.5-7B", "Llama-3.1-8B"])
def test_auto_is_lora_for_a_7b_from_24_gb(model: str) -> None:
    assert planned(model, Method.AUTO, 24 * GIGABYTE).method is Method.LORA
    assert planned(model, Method.AUTO, 23 * GIGABYTE).method is Method.QLORA


def test_auto_is_qlora_for_a_65b_and_fits_into_48_gb() -> None:
    plan = planned("LLaMA-65B", Method.AUTO, 48 * GIGABYTE)
    assert plan.method is Method.QLORA
    assert plan.predicted_peak_bytes is not None
    assert plan.predicted_peak_bytes < 48 * GIGABYTE


def test_auto_is_never_a_full_fine_tuning() -> None:
    assert planned("SmolLM2-135M", Method.AUTO).method is Method.LORA


# What would fit


def test_a_lora_that_does_not_fit_is_told_what_would() -> None:
    message = refused("Mistral-7B", Method.LORA, 16 * GIB)
    assert message.startswith(
        "method LoRA needs 15.0 GiB with micro-batches of 1 x 2048 tokens, and 14.2 GiB of the "
        "16.0 GiB of one GPU can be used; what would fit: method: QLoRA ("
    )
    assert "GPUs with 24 GB (" in message
    assert "method: LoRA with resources.gpus 2 and training.parallelism FSDP2 (" in message


def test_a_sequence_that_is_too_long_is_told_a_length() -> None:
    message = refused(method=Method.QLORA, gpu_memory=24 * GIB, max_length=65536)
    assert "training.maxLength 32768 (" in message


def test_a_base_that_nearly_fits_is_told_an_optimiser_with_less_state() -> None:
    message = refused("Llama-3.1-70B", Method.QLORA, 46 * GIB)
    assert "training.optimizer AdamW8bit (42." in message
    assert planned("Llama-3.1-70B", Method.QLORA, 46 * GIB, optimizer=Optimizer.ADAMW_8BIT)


def test_auto_is_told_to_cut_a_model_that_lora_trains() -> None:
    message = refused("Llama-3.1-70B", Method.AUTO, 40 * GIB, batch_size=16)
    assert "method: LoRA with resources.gpus 8 and training.parallelism FSDP2 (" in message
    plan = planned("Llama-3.1-70B", Method.AUTO, 40 * GIB, batch_size=16, gpus=8)
    assert (plan.method, plan.parallelism) == (Method.LORA, Parallelism.FSDP2)


def test_what_is_said_to_fit_fits() -> None:
    assert planned(method=Method.QLORA, gpu_memory=24 * GIB, max_length=32768)
    assert planned("Mistral-7B", Method.LORA, 24 * GIGABYTE)
    assert planned("Mistral-7B", Method.LORA, 16 * GIB, gpus=2, parallelism=Parallelism.FSDP2)


def test_where_no_change_helps_the_user_is_told_so() -> None:
    assert "choose a smaller model" in refused("Llama-3.1-70B", Method.FULL, 16 * GIB)


# When memory runs out


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(ORDER))
def test_halving_keeps_the_effective_batch_and_comes_to_an_end(
    micro_batch: int, accumulation: int, checkpointing: ActivationCheckpointing
) -> None:
    plan: MemoryPlan | None = MemoryPlan(
        method=Method.LORA,
        micro_batch_size=micro_batch,
        gradient_accumulation=accumulation,
        activation_checkpointing=checkpointing,
        optimizer=Optimizer.ADAMW,
    )
    seen = []
    while plan is not None:
        seen.append((plan.micro_batch_size, plan.activation_checkpointing))
        assert plan.micro_batch_size * plan.gradient_accumulation == micro_batch * accumulation
        plan = halve(plan)
    assert seen[-1] == (1, FULL)
    assert len(seen) <= 9


def test_halving_halves() -> None:
    plan = planned()
    smaller = halve(plan)
    assert smaller is not None
    assert (smaller.micro_batch_size, smaller.gradient_accumulation) == (2, 4)
    assert smaller.predicted_peak_bytes is None


# The command


def test_the_command_prints_a_row_for_each_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-shape", "Mistral-7B", "--gpu-memory", "16Gi"]
    monkeypatch.setattr("sys.argv", ["memory_planner", *arguments])
    main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(Method)
    assert rows[0].startswith("| Auto: QLoRA | 1 x 8 | Partial | AdamW | - | 10.6 |")
    assert "what would fit: method: QLoRA" in rows[1]


def test_the_command_refuses_a_memory_without_a_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-shape", "Mistral-7B", "--gpu-memory", "16"]
    monkeypatch.setattr("sys.argv", ["memory_planner", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "'16' is no memory: write 80Gi or 80G" in capsys.readouterr().err
