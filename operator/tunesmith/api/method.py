"""How a model is tuned: the method, and the shape of an adapter."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.schema import ApiModel, between, rule, rules

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Method(StrEnum):
    """What is trained, and in how many bits the frozen rest lies."""

    AUTO = "Auto"
    LORA = "LoRA"
    QLORA = "QLoRA"
    DORA = "DoRA"
    QDORA = "QDoRA"
    FULL = "Full"

    @property
    def is_quantised(self) -> bool:
        return self in {Method.QLORA, Method.QDORA}

    @property
    def is_dora(self) -> bool:
        return self in {Method.DORA, Method.QDORA}


METHOD_DESCRIPTION = (
    "How the model is tuned. LoRA trains small matrices beside the frozen weights: about 1% of the "
    "parameters, an adapter of some megabytes that vLLM serves next to the base. QLoRA holds the "
    "frozen weights in 4 bits (NF4, double quantisation). DoRA and QDoRA also train the length of "
    "each row; vLLM cannot serve such adapters beside the base, so they are served merged. Full "
    "trains every weight and makes a model, not an adapter. Auto is LoRA where it fits into the "
    "GPU's memory, else QLoRA."
)


class InitLoraWeights(StrEnum):
    """How the adapter's matrices begin."""

    DEFAULT = "Default"
    GAUSSIAN = "Gaussian"
    ORTHOGONAL = "Orthogonal"


class Lora(ApiModel):
    """The adapter's shape. Defaults: arXiv:2106.09685 and the practice since."""

    rank: int = Field(
        default=16,
        description=(
            "Rank r of the update matrices. 4 to 64 in powers of two is the proven range; more "
            "rank is more capacity and more memory. Up to 512 can be served."
        ),
        json_schema_extra=between(
            1, 512, "lora.rank", "start at 16, and stay between 4 and 64 unless you measured it"
        ),
    )
    alpha: int = Field(
        default=32,
        description="Scaling: the update is multiplied by alpha / rank. Use rank or twice rank.",
        json_schema_extra=between(1, 2048, "lora.alpha", "use rank or twice the rank"),
    )
    dropout: float = Field(
        default=0.05,
        description="Dropout on the adapter's input: 0.05 for small data, 0 for large; at most 0.1 "
        "is recommended.",
        json_schema_extra=between(0, 0.9, "lora.dropout", "0.05 suits small datasets"),
    )
    target_modules: list[str] = Field(
        default=PROJECTIONS,
        min_length=1,
        max_length=32,
        description=(
            "Names of the linear layers that get an adapter. The default is the four attention and "
            "the three MLP projections of Llama-like models."
        ),
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": 128},
            **rules(
                rule(
                    "self.all(module, module != 'lm_head' && module != 'embed_tokens')",
                    "lora.targetModules must not name lm_head or embed_tokens: vLLM cannot serve "
                    "such an adapter",
                )
            ),
        },
    )
    use_rslora: bool = Field(
        default=False,
        description=(
            "Multiply the update by alpha / sqrt(rank) instead: for high ranks (arXiv:2312.03732)."
        ),
    )
    init_lora_weights: InitLoraWeights = Field(
        default=InitLoraWeights.DEFAULT,
        description=(
            "How the matrices begin. Default: Kaiming-uniform A and zero B. Initialisations that "
            "change the base model's weights (PiSSA, OLoRA, CorDA, LoftQ) are left out, as vLLM "
            "refuses their adapters."
        ),
    )
