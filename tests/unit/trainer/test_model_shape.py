"""Parameters counted from config.json are those of the model that transformers makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.memory_planner.model_shape import FAMILIES, read_shape

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", {"head_dim": 32}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 16}),
    ("gemma", {"tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("family", "change"), VARIANTS)
def test_every_family_has_the_parameters_that_transformers_makes(
    family: str, change: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    configuration = AutoConfig.for_model(family, **SMALL, **change)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(configuration)
    expected = {
        linear.name: (linear.outputs, linear.inputs)
        for linear in read_shape({**SMALL, **change, "model_type": family}).linears
    }

    assert read_shape(configuration.to_dict()).parameters == model.num_parameters()
    assert (
        read_shape({**SMALL, **change, "model_type": family}).parameters == model.num_parameters()
    )
    found = {
        name.rpartition(".")[2]: tuple(module.weight.shape)
        for name, module in model.model.layers[0].named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert found == expected
