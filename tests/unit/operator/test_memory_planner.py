"""The memory planner: what it predicts, what it chooses, and what it says where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith.api.memory import ActivationCheckpointing, MemoryPlan, Optimizer, Parallelism
from tunesmith.api.method import PROJECTIONS, Lora, Method
from tunesmith.api.trainer_contract import Hardware
from tunesmith.api.training import Training
from tunesmith.memory_planner.__main__ import main
from tunesmith.memory_planner.gpus import GIGABYTE, gpu_by_memory, gpu_by_name
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.memory import GIB, Setup, predict
from tunesmith.memory_planner.model_shape import ModelShape, read_shape
from tunesmith.memory_planner.planning import DoesNotFit, halve, plan_memory
from tunesmith.memory_planner.request import PlanRequest
from tunesmith.memory_planner.throughput import tokens_per_second

from tests.unit.operator.measured_peaks import FULL, OF_OTHERS, OF_OUR_KIND, OFF, PARTIAL, Measured

EIGHT_B = KNOWN_MODELS["Llama-3.1-8B"]
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


# Predictions against measurements


@pytest.mark.parametrize("measured", OF_OUR_KIND, ids=lambda measured: measured.name)
def test_a_predicted_peak_is_within_two_percent_of_the_measured_one(measured: Measured) -> None:
    assert predict(measured.shape, measured.setup).peak == pytest.approx(measured.bytes, rel=0.02)


@pytest.mark.parametrize("measured", OF_OTHERS, ids=lambda measured: measured.name)
def test_no_other_training_code_needed_much_less_than_is_predicted(measured: Measured) -> None:
    assert predict(measured.shape, measured.setup).peak <= 1.07 * measured.bytes


@pytest.mark.parametrize(
    "measured",
    [measured for measured in OF_OUR_KIND if measured.tokens_per_second],
    ids=lambda measured: measured.name,
)
def test_predicted_speed_meets_what_it_was_fitted_to(measured: Measured) -> None:
    card = gpu_by_name("NVIDIA H100 80GB HBM3")
    assert card is not None
    speed = tokens_per_second(measured.shape, measured.setup, 1, card)
    assert speed == pytest.approx(measured.tokens_per_second, rel=0.04)


@pytest.mark.parametrize(("checkpointing", "expected"), [(OFF, 4.3), (FULL, 0.5)])
def test_each_token_of_an_8b_adds_what_was_seen(
    checkpointing: ActivationCheckpointing, expected: float
) -> None:
    some = replace(OF_OUR_KIND[1].setup, micro_batch=5, checkpointing=checkpointing)
    more = replace(some, micro_batch=6)
    added = predict(EIGHT_B, more).peak - predict(EIGHT_B, some).peak
    assert added / 2048 / 2**20 == pytest.approx(expected, rel=0.15)


def test_full_fine_tuning_with_adamw_takes_sixteen_bytes_for_each_weight() -> None:
    setup = replace(
        OF_OUR_KIND[0].setup, method=Method.FULL, optimizer=Optimizer.ADAMW, accumulates=True
    )
    need = predict(KNOWN_MODELS["Llama-2-7B"], setup)
    held = need.weights + need.gradients + need.training_state
    assert held == pytest.approx(16 * 6_738_415_616, rel=1e-6)


# How predictions move

shapes = st.sampled_from(list(KNOWN_MODELS.values()))
setups = st.builds(
    Setup,
    method=st.sampled_from([method for method in Method if method is not Method.AUTO]),
    rank=st.sampled_from([4, 16, 64]),
    dropout=st.sampled_from([0.0, 0.05]),
    target_modules=st.just((*PROJECTIONS, "qkv_proj", "gate_up_proj")),
    length=st.integers(16, 32768),
    micro_batch=st.integers(1, 64),
    checkpointing=st.sampled_from(ORDER),
    optimizer=st.sampled_from([each for each in Optimizer if each is not Optimizer.AUTO]),
    accumulates=st.booleans(),
    processes=st.sampled_from([2, 8]),
    parallelism=st.sampled_from(Parallelism).filter(lambda each: each is not Parallelism.AUTO),
)


@settings(deadline=None)
@given(shapes, setups)
def test_more_of_anything_never_needs_less(shape: ModelShape, setup: Setup) -> None:
    need = predict(shape, setup).peak
    for more in (
        replace(setup, micro_batch=setup.micro_batch + 1),
        replace(setup, length=setup.length + 1),
        replace(setup, rank=2 * setup.rank),
        replace(setup, accumulates=True),
    ):
        assert predict(shape, more).peak >= need


@settings(deadline=None)
@given(shapes, setups)
def test_more_checkpointing_never_needs_more(shape: ModelShape, setup: Setup) -> None:
    peaks = [predict(shape, replace(setup, checkpointing=each)).peak for each in ORDER]
    assert peaks == sorted(peaks, reverse=True)


@settings(deadline=None)
@given(shapes, setups)
def test_a_model_cut_among_more_gpus_never_needs_more(shape: ModelShape, setup: Setup) -> None:
    cut = replace(setup, parallelism=Parallelism.FSDP2)
    assert predict(shape, replace(cut, processes=8)).peak <= predict(shape, cut).peak


@settings(deadline=None)
@given(shapes, setups.filter(lambda setup: setup.method is not Method.FULL))
def test_dora_never_needs_less_and_four_bits_never_more(shape: ModelShape, setup: Setup) -> None:
    lora, qlora, dora = (
        replace(setup, method=method, parallelism=Parallelism.DDP)
        for method in (Method.LORA, Method.QLORA, Method.DORA)
    )
    assert predict(shape, dora).peak > predict(shape, lora).peak > predict(shape, qlora).peak


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


def test_full_fine_tuning_of_an_8b_takes_a_paged_optimiser_on_80_gb() -> None:
    plan = planned(method=Method.FULL)
    assert plan.optimizer is Optimizer.PAGED_ADAMW_8BIT


def test_full_fine_tuning_of_a_1b_takes_plain_adamw_on_80_gb() -> None:
    assert planned("Llama-3.2-1B", method=Method.FULL).optimizer is Optimizer.ADAMW


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
        "method LoRA needs 15.3 GiB with micro-batches of 1 x 2048 tokens, and 14.2 GiB of the "
        "16.0 GiB of one GPU can be used; what would fit: method: QLoRA ("
    )
    assert "GPUs with 24 GB (" in message
    assert "method: LoRA with resources.gpus 2 and training.parallelism FSDP2 (" in message


def test_a_sequence_that_is_too_long_is_told_a_length() -> None:
    message = refused(method=Method.QLORA, gpu_memory=24 * GIB, max_length=65536)
    assert "training.maxLength 16384 (" in message


def test_a_base_that_nearly_fits_is_told_an_optimiser_with_less_state() -> None:
    message = refused("Llama-3.1-70B", Method.QLORA, 47 * GIB)
    assert "training.optimizer AdamW8bit (43." in message
    assert planned("Llama-3.1-70B", Method.QLORA, 47 * GIB, optimizer=Optimizer.ADAMW_8BIT)


def test_auto_is_told_to_cut_a_model_that_lora_trains() -> None:
    message = refused("Llama-3.1-70B", Method.AUTO, 40 * GIB, batch_size=16)
    assert "method: LoRA with resources.gpus 8 and training.parallelism FSDP2 (" in message
    plan = planned("Llama-3.1-70B", Method.AUTO, 40 * GIB, batch_size=16, gpus=8)
    assert (plan.method, plan.parallelism) == (Method.LORA, Parallelism.FSDP2)


def test_what_is_said_to_fit_fits() -> None:
    assert planned(method=Method.QLORA, gpu_memory=24 * GIB, max_length=16384)
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
    assert rows[0].startswith("| Auto: QLoRA | 1 x 8 | Partial | AdamW | - | 10.8 |")
    assert "what would fit: method: QLoRA" in rows[1]


def test_the_command_refuses_a_memory_without_a_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-shape", "Mistral-7B", "--gpu-memory", "16"]
    monkeypatch.setattr("sys.argv", ["memory_planner", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "'16' is no memory: write 80Gi or 80G" in capsys.readouterr().err


# Shapes

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("SmolLM2-135M", 134_515_008),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen3-8B", 8_190_735_360),
        ("Mistral-7B", 7_248_023_552),
        ("Gemma-3-1B", 999_885_952),
        ("Phi-3-mini", 3_821_079_552),
        ("Llama-3.1-70B", 70_553_706_496),
    ],
)
def test_parameters_are_those_on_the_model_cards(model: str, parameters: int) -> None:
    assert KNOWN_MODELS[model].parameters == parameters


def test_a_configuration_is_read_as_transformers_would() -> None:
    assert read_shape(LLAMA) == EIGHT_B
    assert read_shape({**LLAMA, "num_key_value_heads": None}).kv_heads == 32


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mamba"}, "type 'mamba' cannot be predicted"),
        ({"model_type": "gemma2"}, "model_type of llama, mistral"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "num_local_experts 8"),
        ({"hidden_size": None}, "hidden_size as a positive integer, not None"),
        ({"vocab_size": "many"}, "vocab_size as a positive integer, not 'many'"),
    ],
)
def test_what_cannot_be_predicted_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_shape({**LLAMA, **change})


# GPUs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_a_gpu_is_known_by_the_name_that_torch_gives(name: str, expected: str) -> None:
    found = gpu_by_name(name)
    assert found is not None
    assert found.name == expected


@pytest.mark.parametrize(
    ("memory", "expected"),
    [(80 * GIB, "H100"), (80 * GIGABYTE, "H100"), (141 * GIGABYTE, "H200"), (24 * GIB, "A10")],
)
def test_a_gpu_is_guessed_by_its_memory(memory: int, expected: str) -> None:
    found = gpu_by_memory(memory)
    assert found is not None
    assert found.name == expected


def test_an_unknown_gpu_is_not_guessed() -> None:
    assert gpu_by_name("AMD Instinct MI300X") is None
    assert gpu_by_memory(5 * GIB) is None
