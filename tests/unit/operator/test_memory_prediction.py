"""What the memory planner predicts, against measurements, and how predictions move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith.api.memory import ActivationCheckpointing, Optimizer, Parallelism
from tunesmith.api.method import PROJECTIONS, Method
from tunesmith.memory_planner.gpus import GIGABYTE, gpu_by_memory, gpu_by_name
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.memory import GIB, Setup, predict
from tunesmith.memory_planner.model_shape import ModelShape, read_shape
from tunesmith.memory_planner.throughput import tokens_per_second

from tests.unit.operator.measured_peaks import (
    AFTERWARDS,
    FULL,
    OF_OUR_ENGINE,
    OF_PROTOTYPES,
    OFF,
    PAGED,
    PAGED_BYTES,
    PARTIAL,
    Measured,
)

EIGHT_B = KNOWN_MODELS["Llama-3.1-8B"]
ORDER = (OFF, PARTIAL, FULL)

# Predictions against measurements


#: A tensor that is forgotten would hide in more.
CLOSE = 0.02
#: Sums of buffers that no plan knows: those of NCCL, of parts that are gathered early.
UNSEEN = 0.03


@pytest.mark.parametrize("measured", OF_OUR_ENGINE, ids=lambda measured: measured.name)
def test_a_predicted_peak_is_within_two_percent_of_the_measured_one(measured: Measured) -> None:
    assert predict(measured.shape, measured.setup).peak == pytest.approx(measured.bytes, rel=CLOSE)


@pytest.mark.parametrize("measured", AFTERWARDS, ids=lambda measured: measured.name)
def test_settings_that_the_planner_was_not_made_from_are_predicted_too(measured: Measured) -> None:
    assert predict(measured.shape, measured.setup).peak == pytest.approx(measured.bytes, rel=UNSEEN)


@pytest.mark.parametrize("measured", OF_PROTOTYPES, ids=lambda measured: measured.name)
def test_a_step_of_the_same_make_needed_as_much(measured: Measured) -> None:
    assert predict(measured.shape, measured.setup).peak == pytest.approx(measured.bytes, rel=CLOSE)


@pytest.mark.parametrize("measured", OF_OUR_ENGINE, ids=lambda measured: measured.name)
def test_no_prediction_is_more_than_a_thousandth_too_low(measured: Measured) -> None:
    assert predict(measured.shape, measured.setup).peak >= measured.bytes * (1 - 0.001)


def test_the_state_of_a_paged_optimiser_is_what_was_seen() -> None:
    paged = [measured for measured in OF_OUR_ENGINE if measured.optimizer is PAGED]
    assert len(paged) == 3
    for measured in paged:
        need = predict(measured.shape, measured.setup)
        assert need.paged == pytest.approx(PAGED_BYTES, rel=1e-3)


@pytest.mark.parametrize(
    "measured",
    [measured for measured in OF_OUR_ENGINE if measured.tokens_per_second],
    ids=lambda measured: measured.name,
)
def test_predicted_speed_is_within_five_percent_of_the_measured_one(measured: Measured) -> None:
    card = gpu_by_name("NVIDIA H100 80GB HBM3")
    assert card is not None
    speed = tokens_per_second(measured.shape, measured.setup, measured.accumulation, card)
    assert speed == pytest.approx(measured.tokens_per_second, rel=0.05)


@pytest.mark.parametrize(("checkpointing", "expected"), [(OFF, 4.3), (FULL, 0.41)])
def test_each_token_of_an_8b_adds_what_was_seen(
    checkpointing: ActivationCheckpointing, expected: float
) -> None:
    some = replace(OF_OUR_ENGINE[0].setup, micro_batch=5, checkpointing=checkpointing)
    more = replace(some, micro_batch=6)
    added = predict(EIGHT_B, more).peak - predict(EIGHT_B, some).peak
    assert added / 2048 / 2**20 == pytest.approx(expected, rel=0.01)


def test_full_fine_tuning_with_adamw_takes_eight_bytes_for_each_weight() -> None:
    setup = replace(OF_OUR_ENGINE[0].setup, method=Method.FULL)
    need = predict(KNOWN_MODELS["Llama-2-7B"], setup)
    held = need.weights + need.gradients + need.training_state
    assert held == pytest.approx(8 * 6_738_415_616, rel=1e-6)


def test_four_bit_weights_stay_whole_where_a_model_is_cut() -> None:
    whole = replace(OF_OUR_ENGINE[0].setup, method=Method.QLORA, processes=8)
    cut = replace(whole, parallelism=Parallelism.FSDP2)
    weights = predict(EIGHT_B, cut).weights
    others = EIGHT_B.parameters - EIGHT_B.linear_parameters
    assert weights > 0.5 * EIGHT_B.linear_parameters
    assert predict(EIGHT_B, whole).weights - weights == pytest.approx(2 * others * 7 / 8, rel=1e-6)


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
    # With hardly a token the peak is in one layer, and DoRA's computed again is larger than kept.
    setup = replace(setup, length=512 + setup.length)
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
