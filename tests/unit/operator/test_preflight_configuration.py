"""Preflight: which configurations vLLM serves; the others are refused with a way out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith.api.digests import ADAPTER_CONFIG
from tunesmith.api.reasons import RefusalReason
from tunesmith.sidecar.base_model import BaseModel
from tunesmith.sidecar.preflight import examine

from tests.unit.operator.adapters import DOWN, Adapter, Q, Stored, pair, refused

# Good ones


@pytest.mark.parametrize(
    "changed",
    [
        {"use_rslora": True, "alpha_pattern": {"q_proj": 3.5}},
        {"modules_to_save": [], "layer_replication": None, "use_qalora": False},
        {"modules_to_save": None, "target_modules": "all-linear", "target_parameters": []},
        *({"init_lora_weights": each} for each in (False, "gaussian", "eva", "Orthogonal", None)),
    ],
)
def test_what_vllm_serves_passes(
    adapter: Adapter, base: BaseModel, changed: dict[str, Any]
) -> None:
    adapter.configuration |= changed
    assert examine(adapter.expected(), base, 16).shapes_checked


@pytest.mark.parametrize(
    "key",
    [
        "down_proj",
        "mlp.down_proj",
        DOWN,
        f"^{DOWN}",
        r"^model\.layers\.\d+\.mlp\.down_proj$",
        r"layers\.(0|1)\.mlp\.(?:up|down)_proj",
        ".*down_proj",
    ],
)
def test_rank_patterns_follow_pefts_rule(adapter: Adapter, base: BaseModel, key: str) -> None:
    adapter.configuration["rank_pattern"] = {key: 8}
    adapter.tensors = pair(Q) | pair(DOWN, rank=8)
    assert examine(adapter.expected(), base, 8).rank == 8


def test_the_first_rank_pattern_that_fits_counts(adapter: Adapter, base: BaseModel) -> None:
    adapter.configuration["rank_pattern"] = {"own_proj": 2, "down_proj": 8, "mlp.down_proj": 2}
    adapter.tensors = pair(Q) | pair(DOWN, rank=8)
    assert examine(adapter.expected(), base, 8).rank == 8


# Unreadable ones


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"peft_type": "LORA"}',
        '{"r": ' + "9" * 5000 + "}",
        "\ufeff{}",
    ],
    ids=lambda text: text[:20],
)
def test_configurations_that_cannot_be_read_are_refused(adapter: Adapter, text: str) -> None:
    adapter.expected()
    (adapter.folder / ADAPTER_CONFIG).write_text(text)
    refused(adapter.named(), RefusalReason.CONFIGURATION_UNREADABLE, ADAPTER_CONFIG)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_what_vllm_could_not_decode_is_refused(adapter: Adapter, encoding: str) -> None:
    """A good configuration otherwise: vLLM would end at its next start."""
    adapter.expected()
    text = json.dumps(adapter.configuration)
    (adapter.folder / ADAPTER_CONFIG).write_bytes(text.encode(encoding))
    refused(adapter.named(), RefusalReason.CONFIGURATION_UNREADABLE, "is no JSON")


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_missing_keys_are_named(adapter: Adapter, key: str) -> None:
    del adapter.configuration[key]
    refused(adapter.expected(), RefusalReason.CONFIGURATION_UNREADABLE, key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", 1),
        *(("r", each) for each in ("4", 0, -1, 4.0, True, None, 10**400)),
        *(("lora_alpha", each) for each in ("8", None, float("nan"), float("inf"), 1e30, 10**400)),
        ("rank_pattern", []),
        ("rank_pattern", {"q_proj": "4"}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"q_proj": None}),
        ("alpha_pattern", {"q_proj": float("nan")}),
        ("target_modules", 7),
        ("use_dora", "yes"),
        ("bias", None),
        ("init_lora_weights", [1]),
        ("modules_to_save", {"a": 1}),
    ],
)
def test_wrong_types_are_named(adapter: Adapter, key: str, value: object) -> None:
    adapter.configuration[key] = value
    refused(adapter.expected(), RefusalReason.CONFIGURATION_UNREADABLE, key)


# What vLLM cannot serve


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "LOHA"])
def test_other_kinds_are_refused(adapter: Adapter, kind: str) -> None:
    adapter.configuration = {"peft_type": kind}
    refused(adapter.expected(), RefusalReason.NOT_LORA, kind)


def test_dora_is_refused_with_the_way_to_serve_it(adapter: Adapter) -> None:
    adapter.configuration["use_dora"] = True
    refused(adapter.expected(), RefusalReason.DORA_NOT_SERVABLE, "strategy: Merged")


@pytest.mark.parametrize("end", ["", ".weight"])
def test_dora_is_refused_by_its_tensors_too(adapter: Adapter, end: str) -> None:
    adapter.tensors[f"base_model.model.{Q}.lora_magnitude_vector{end}"] = Stored((8,))
    refused(adapter.expected(), RefusalReason.DORA_NOT_SERVABLE, "strategy: Merged")


def test_whole_modules_are_refused(adapter: Adapter) -> None:
    adapter.configuration["modules_to_save"] = ["lm_head"]
    refused(adapter.expected(), RefusalReason.MODULES_TO_SAVE, "lm_head")


@pytest.mark.parametrize(("key", "value"), [("bias", "all"), ("lora_bias", True)])
def test_biases_are_refused(adapter: Adapter, key: str, value: object) -> None:
    adapter.configuration[key] = value
    refused(adapter.expected(), RefusalReason.BIAS_NOT_SERVABLE, key, str(value))


def test_biases_are_refused_by_their_tensors_too(adapter: Adapter) -> None:
    adapter.tensors[f"base_model.model.{Q}.lora_B.bias"] = Stored((8,))
    refused(adapter.expected(), RefusalReason.BIAS_NOT_SERVABLE, Q)


@pytest.mark.parametrize(
    "name", ["pissa", "PiSSA", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga", "?"]
)
def test_initialisations_that_change_the_base_are_refused(adapter: Adapter, name: str) -> None:
    adapter.configuration["init_lora_weights"] = name
    refused(adapter.expected(), RefusalReason.INITIALISATION_NOT_SERVABLE, name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [1]),
        ("use_qalora", True),
        ("use_bdlora", {"target_modules_bd_a": []}),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("trainable_token_indices", [1]),
        ("megatron_config", {"a": 1}),
    ],
)
def test_foreign_layouts_are_refused(adapter: Adapter, key: str, value: object) -> None:
    adapter.configuration[key] = value
    refused(adapter.expected(), RefusalReason.LAYOUT_NOT_SERVABLE, key)


@pytest.mark.parametrize("option", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize(
    "key", ["(a+)+b", "(", "a{9}", "(?:(a|b)+)*", ".*.*.*", "[", "x" * 300, "", "(a)(b)(c)", "\n"]
)
def test_patterns_that_could_run_for_ever_are_refused(
    adapter: Adapter, option: str, key: str
) -> None:
    adapter.configuration[option] = {key: 4}
    refused(adapter.expected(), RefusalReason.LAYOUT_NOT_SERVABLE, option)


def test_patterns_that_take_too_long_are_given_up(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.sidecar.adapter_configuration.LONGEST_MATCHING_SECONDS", 0)
    adapter.configuration["rank_pattern"] = {"a": 4}
    refused(adapter.expected(), RefusalReason.LAYOUT_NOT_SERVABLE, "1 keys")
