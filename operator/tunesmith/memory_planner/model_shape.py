"""The shape of a decoder, read from its config.json: how many parameters, and where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class UnknownModelError(ValueError):
    """Nobody has said how this model's memory is computed; it may train all the same."""


@dataclass(frozen=True)
class Family:
    """What model_type says beyond the numbers of config.json (transformers 5.23, models/*)."""

    #: q_norm and k_norm, one scale per value of a head.
    query_key_norms: bool = False
    #: RMSNorms over the hidden state in each layer.
    norms: int = 2
    #: Biases on q, k and v whatever attention_bias says.
    query_key_value_biases: bool = False
    #: One linear layer for q, k and v, and one for gate and up.
    fused_projections: bool = False
    #: What a config.json means that is silent on these.
    tied_embeddings: bool = False
    head_size: int | None = None


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(query_key_value_biases=True),
    "qwen3": Family(query_key_norms=True, head_size=128),
    "gemma": Family(tied_embeddings=True, head_size=256),
    "gemma3_text": Family(norms=4, query_key_norms=True, tied_embeddings=True, head_size=256),
    "phi3": Family(fused_projections=True),
    "smollm3": Family(tied_embeddings=True),
}

#: Keys of config.json by which mixtures of experts tell how many there are.
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Linear:
    """One linear layer of a decoder layer: ``outputs x inputs`` weights."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    def adapter_weights(self, rank: int) -> int:
        """Of the matrices A (rank x inputs) and B (outputs x rank)."""
        return rank * (self.inputs + self.outputs)


@dataclass(frozen=True)
class ModelShape:
    """A decoder with RMSNorm, rotary positions and a gated MLP."""

    family: Family
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied_embeddings: bool
    attention_bias: bool = False
    mlp_bias: bool = False

    @property
    def attention_width(self) -> int:
        """Values of all queries of one token."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer, by their names in transformers."""
        hidden, wide, kv = self.hidden, self.attention_width, self.kv_width
        biased = self.attention_bias or self.family.query_key_value_biases
        output = Linear("o_proj", wide, hidden, self.attention_bias)
        down = Linear("down_proj", self.intermediate, hidden, self.mlp_bias)
        if self.family.fused_projections:
            return (
                Linear("qkv_proj", hidden, wide + 2 * kv),
                output,
                Linear("gate_up_proj", hidden, 2 * self.intermediate),
                down,
            )
        return (
            Linear("q_proj", hidden, wide, biased),
            Linear("k_proj", hidden, kv, biased),
            Linear("v_proj", hidden, kv, biased),
            output,
            Linear("gate_proj", hidden, self.intermediate, self.mlp_bias),
            Linear("up_proj", hidden, self.intermediate, self.mlp_bias),
            down,
        )

    def targets(self, names: tuple[str, ...]) -> tuple[Linear, ...]:
        """Those of the linear layers that get an adapter. Raises ValueError where none does."""
        found = tuple(linear for linear in self.linears if linear.name in names)
        if not found:
            raise ValueError(
                f"lora.targetModules names no linear layer of this model: {', '.join(names)}; "
                f"it has {', '.join(linear.name for linear in self.linears)}"
            )
        return found

    @property
    def layer_linear_weights(self) -> int:
        return sum(linear.weights for linear in self.linears)

    @property
    def linear_parameters(self) -> int:
        """Weights that QLoRA holds in 4 bits: of all layers, without embedding and head."""
        return self.layers * self.layer_linear_weights

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head_parameters(self) -> int:
        """Of its own: none where the head is the embedding."""
        return 0 if self.tied_embeddings else self.embedding_parameters

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        norms = self.family.norms * self.hidden
        if self.family.query_key_norms:
            norms += 2 * self.head_size
        biases = sum(linear.outputs for linear in self.linears if linear.bias)
        return self.layers * (norms + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return (
            self.linear_parameters
            + self.embedding_parameters
            + self.head_parameters
            + self.small_parameters
        )

    @property
    def multiplied_parameters(self) -> int:
        """Weights that every token is multiplied with: linear layers and head."""
        return self.linear_parameters + self.embedding_parameters


def read_shape(configuration: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json states.

    Raises UnknownModelError with a sentence for a family that is not known, a mixture of experts,
    and a number that is missing or no positive integer.
    """
    kind = configuration.get("model_type")
    refuse_experts(configuration)
    family = FAMILIES.get(str(kind))
    if family is None:
        raise UnknownModelError(
            f"the memory of a model of type {kind!r} cannot be predicted: config.json must have "
            f"a model_type of {', '.join(FAMILIES)}"
        )
    heads = size(configuration, "num_attention_heads")
    hidden = size(configuration, "hidden_size")
    return ModelShape(
        family=family,
        hidden=hidden,
        intermediate=size(configuration, "intermediate_size"),
        layers=size(configuration, "num_hidden_layers"),
        heads=heads,
        kv_heads=size(configuration, "num_key_value_heads", heads),
        head_size=size(configuration, "head_dim", family.head_size or hidden // heads),
        vocabulary=size(configuration, "vocab_size"),
        tied_embeddings=bool(configuration.get("tie_word_embeddings", family.tied_embeddings)),
        attention_bias=bool(configuration.get("attention_bias", False)),
        mlp_bias=bool(configuration.get("mlp_bias", False)),
    )


def refuse_experts(configuration: Mapping[str, Any]) -> None:
    """Which experts a token meets depends on the data, so there is no prediction to stand for."""
    for key in EXPERT_COUNTS:
        count = configuration.get(key)
        if isinstance(count, int) and count > 1:
            raise UnknownModelError(
                f"the memory of a mixture of experts cannot be predicted: config.json states "
                f"{key} {count}"
            )


def size(configuration: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer of config.json; null counts as missing, as transformers writes it."""
    value = configuration.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnknownModelError(
            f"config.json must state {key} as a positive integer, not {value!r}"
        )
    return value
