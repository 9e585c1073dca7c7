"""PEFT's LoRA and DoRA layers with another forward pass: same parameters, names and state.

DoRA (arXiv:2402.09353) divides each output by the length of its row of W + sBA. PEFT builds that
matrix in every forward pass, through an identity matrix; here the squared lengths are
|W|² + 2s B·(W Aᵀ) + s² (B A Aᵀ)·B, row by row, for the price of r columns. As in PEFT no gradient
flows through the length. Dropout, where there is any, is on the input of A alone; PEFT drops
values on the way into the frozen weight, too, in which the authors' own code gives a choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from tunesmith_trainer.train.engine.low_rank import drop, low_rank_product
from tunesmith_trainer.train.engine.weights import dense, frozen_product, nf4_scales

if TYPE_CHECKING:
    from bitsandbytes.nn import Linear4bit

#: The packed values, and the tensors with which they are read.
NF4 = ("nf4_packed", "nf4_absmax", "nf4_code", "nf4_nested_absmax", "nf4_offset")
#: Squared length of each row of the frozen weight.
ROW_SQUARES = "row_squares"


def quicken(model: nn.Module, adapter: str = "default") -> None:
    """Give every adapted linear layer, and every 4-bit one, the quick forward pass.

    The layers must lie on the device where they are computed.
    """
    adapted_layers = [
        module
        for module in model.modules()
        if isinstance(module, LoraLayer) and adapter in module.lora_A
    ]
    for module in adapted_layers:
        base = module.get_base_layer()
        if is_4bit(base):
            keep_nf4(module, base)
        if adapter in module.lora_magnitude_vector:
            module.register_buffer(ROW_SQUARES, row_squares(base), persistent=False)
        module.__class__ = quick_class(type(module))
    bases = {id(module.get_base_layer()) for module in adapted_layers}
    for module in model.modules():
        if is_4bit(module) and id(module) not in bases:
            keep_nf4(module, module)
            module.__class__ = QuickFrozenLinear


def is_4bit(module: nn.Module) -> bool:
    """Whether bitsandbytes holds the layer, told without the import, which takes a second."""
    return type(module).__name__ == "Linear4bit"


def keep_nf4(owner: nn.Module, layer: Linear4bit) -> None:
    """The layer's tensors without their subclass, which the compiler would trip over.

    They share memory with the layer's weight, and are part of no state dict.
    """
    for name, tensor in zip(NF4, [layer.weight.data, *nf4_scales(layer)], strict=True):
        owner.register_buffer(name, tensor, persistent=False)


class QuickForward(nn.Module):  # type: ignore[misc]
    """Mixed into PEFT's classes, whose other methods (merge, unload, state) stay as they are."""

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if self.disable_adapters or self.merged or arguments or named:
            return super().forward(x, *arguments, **named)
        name = self.active_adapters[0]
        flat = x.reshape(-1, x.shape[-1])
        result = adapted(self, name, flat)
        bias = self.base_layer.bias
        if bias is not None:
            result = result + bias
        return result.view(*x.shape[:-1], result.shape[-1])


class QuickFrozenLinear(nn.Module):  # type: ignore[misc]
    """A 4-bit layer without an adapter."""

    in_features: int
    out_features: int

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weight, scales = held(self, self)
        result = frozen_product(flat, weight, scales, self.out_features, self.in_features, False)
        if self.bias is not None:
            result = result + self.bias
        return result.view(*x.shape[:-1], self.out_features)


def adapted(layer: LoraLayer, name: str, x: Tensor) -> Tensor:
    """The layer's result without its bias, for x [n, in]."""
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    rate = getattr(layer.lora_dropout[name], "p", 0.0)
    dropout = drop(x, rate) if rate and layer.training else None
    weight, scales = held(layer, layer.base_layer)
    result = low_rank_product(x, dropout, weight, scales, a, b, layer.scaling[name])
    if name not in layer.lora_magnitude_vector:
        return result
    magnitude = layer.lora_magnitude_vector[name].weight
    factor = magnitude / row_lengths(layer, name, weight, scales, x.dtype)
    return result * factor.to(result.dtype)


def held(layer: nn.Module, base: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """The frozen weight, or its packed values and what reads them."""
    if not hasattr(layer, NF4[0]):
        return base.weight, []
    packed, *scales = (getattr(layer, name) for name in NF4)
    return packed, scales


def row_lengths(
    layer: LoraLayer, name: str, weight: Tensor, scales: list[Tensor], dtype: torch.dtype
) -> Tensor:
    """Length of each row of W + sBA, 32-bit, [out]."""
    a = layer.lora_A[name].weight.detach()
    b = layer.lora_B[name].weight.detach()
    scaling = layer.scaling[name]
    crossed = frozen_product(a.to(dtype), weight, scales, b.shape[0], a.shape[1], False).T
    squares = (
        layer.row_squares
        + 2 * scaling * (b * crossed).sum(1)
        + scaling**2 * ((b @ (a @ a.T)) * b).sum(1)
    )
    return squares.sqrt()


def row_squares(base: nn.Module) -> Tensor:
    """|W|² of each row, block by block: a copy of the whole weight in 32 bits may not fit."""
    rows, columns = base.out_features, base.in_features
    if is_4bit(base):
        kind = base.weight.quant_state.dtype
        matrix = dense(base.weight.data, nf4_scales(base), rows, columns, kind)
    else:
        matrix = base.weight.detach()
    return torch.cat([block.float().square().sum(1) for block in matrix.split(1024)])


def quick_class(original: type) -> type:
    """The quick subclass of PEFT's layer: one for all layers of a kind, as the compiler asks."""
    return QUICK_CLASSES.setdefault(
        original, type(f"Quick{original.__name__}", (QuickForward, original), {})
    )


QUICK_CLASSES: dict[type, type] = {PeftLinear: type("QuickLinear", (QuickForward, PeftLinear), {})}
