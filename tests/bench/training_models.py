"""Models of known shapes with random weights, made on the device, and documents to train on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tunesmith_trainer.data.chat import Example

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
#: Llama-3.1-8B and -70B, Llama-3.2-1B, and one with which the benchmark itself can be tried.
SHAPES: dict[str, dict[str, Any]] = {
    "8B": LLAMA,
    "70B": {
        **LLAMA,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "1B": {
        **LLAMA,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "tie_word_embeddings": True,
    },
    "tiny": {
        **LLAMA,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}


def config_of(shape: str) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        **SHAPES[shape], rope_parameters={"rope_type": "default", "rope_theta": 500000.0}
    )


def random_model(
    shape: str, attention: str, device: torch.device, dtype: torch.dtype, *, quantised: bool
) -> PreTrainedModel:
    """Weight by weight on the device, so that 70B are never there in 16 bits."""
    import torch
    from torch import nn
    from transformers import LlamaForCausalLM

    config = config_of(shape)
    config._attn_implementation = attention
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    torch.manual_seed(0)
    for name, parameter in list(model.named_parameters()):
        owner = model.get_submodule(name.rpartition(".")[0])
        made = torch.empty(parameter.shape, dtype=dtype, device=device)
        # A norm's weights are ones.
        made.fill_(1.0) if parameter.ndim == 1 else made.normal_(std=0.02)
        if quantised and isinstance(owner, nn.Linear) and "lm_head" not in name:
            place, _, last = name.removesuffix(".weight").rpartition(".")
            setattr(model.get_submodule(place), last, in_4_bits(owner, made))
        else:
            owner.weight = nn.Parameter(made)
    model.tie_weights()
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config).to(device)
    model.is_loaded_in_4bit = quantised
    return model


def in_4_bits(layer: Any, weight: torch.Tensor) -> Any:
    import bitsandbytes

    made = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4"
    ).to(weight.device)
    return made


def full_documents(count: int, length: int, vocabulary: int) -> list[Example]:
    """Each as long as a row, and every token with a label."""
    return [Example(tokens(each, length, vocabulary), 0) for each in range(count)]


def ragged_documents(total: int, longest: int, vocabulary: int) -> list[Example]:
    """Lengths as of chats: log-normal, about 310 tokens in the mean, cut at ``longest``."""
    draw = random.Random(0)
    made: list[Example] = []
    while total > 0:
        size = min(longest, max(16, int(draw.lognormvariate(5.3, 0.9))))
        made.append(Example(tokens(len(made), size, vocabulary), 0))
        total -= size
    return made


def tokens(seed: int, count: int, vocabulary: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, vocabulary) for _ in range(count)]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """TRL asks for a tokenizer, and looks at its special tokens only."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        bos_token="w1",
        eos_token="w2",
        pad_token="w0",
    )
