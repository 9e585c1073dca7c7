"""Shapes of models that people ask for by name, from their config.json on the hub."""

from __future__ import annotations

from tunesmith.memory_planner.model_shape import ModelShape, read_shape


def _shape(
    model_type: str,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    *,
    tied: bool = False,
    head_size: int | None = None,
) -> ModelShape:
    return read_shape(
        {
            "model_type": model_type,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
            "head_dim": head_size,
        }
    )


KNOWN_MODELS = {
    "SmolLM2-135M": _shape("llama", 576, 1536, 30, 9, 3, 49152, tied=True),
    "Gemma-3-1B": _shape("gemma3_text", 1152, 6912, 26, 4, 1, 262144, tied=True, head_size=256),
    "Llama-3.2-1B": _shape("llama", 2048, 8192, 16, 32, 8, 128256, tied=True),
    "Llama-3.2-3B": _shape("llama", 3072, 8192, 28, 24, 8, 128256, tied=True, head_size=128),
    "Phi-3-mini": _shape("phi3", 3072, 8192, 32, 32, 32, 32064),
    "Llama-2-7B": _shape("llama", 4096, 11008, 32, 32, 32, 32000),
    "Mistral-7B": _shape("mistral", 4096, 14336, 32, 32, 8, 32768),
    "Qwen2.5-7B": _shape("qwen2", 3584, 18944, 28, 28, 4, 152064),
    "Llama-3.1-8B": _shape("llama", 4096, 14336, 32, 32, 8, 128256),
    "Qwen3-8B": _shape("qwen3", 4096, 12288, 36, 32, 8, 151936, head_size=128),
    "Qwen3-32B": _shape("qwen3", 5120, 25600, 64, 64, 8, 151936, head_size=128),
    "LLaMA-65B": _shape("llama", 8192, 22016, 80, 64, 64, 32000),
    "Llama-3.1-70B": _shape("llama", 8192, 28672, 80, 64, 8, 128256),
}
