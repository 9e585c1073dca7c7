"""Proof that a merged model says what its base says with the adapter.

Both are computed in float32, from the weights in the type that they are stored and served in. So
what differs is what merging did to the weights, and not the noise of a narrower arithmetic, which
the served model has with or without merging.

Differences are of log-probabilities, over the tokens that come first with the adapter. The
tolerance comes from the model itself, and is the lesser of two bounds:

- An adapter left out, applied twice, or scaled by two differs from the right one by about as much
  as the right one differs from no adapter; scaled by a half, by half of that. A quarter of the
  adapter's own effect separates those from a right merge, for weak adapters as for strong ones.
- A right merge rounds each merged weight w once, by at most u*|w|, where u is half the type's
  spacing at 1 (2^-8 for bfloat16, 2^-11 for float16, 2^-24 for float32). How far that moves this
  model is measured: its merged weights are moved at random by up to u*|w|, once more than the merge
  did. Several times that, so that the luck of one draw does not decide, bounds what rounding
  explains. It finds what is wrong in a part of the layers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

#: Tokens compared at each position.
TOP_TOKENS = 20
#: Largest share of the adapter's effect that a right merge may take or add.
EFFECT_SHARE = 0.25
#: How many times the movement by one random rounding a right merge may show.
ROUNDING_FACTOR = 2.0
#: Sums of float32 in another order alone differ by less. In nats, a change of a tenth of a percent.
LEAST_TOLERANCE = 1e-3
SEED = 0

#: What becomes of a parameter, by its name, while the model computes.
Change = Callable[[str, "torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class Reference:
    """What the base model says with its adapter, prompt by prompt, and without."""

    top_tokens: list[torch.Tensor]
    log_probabilities: list[torch.Tensor]
    #: Names of the layers that the adapter is merged into.
    layers: frozenset[str]
    #: Largest change that the adapter makes.
    effect: float


@dataclass(frozen=True)
class Comparison:
    """How far a merged model is from its reference, and how far it may be."""

    largest_difference: float
    #: Largest change that one more rounding of the merged weights makes.
    rounding: float
    effect: float

    @property
    def tolerance(self) -> float:
        return min(
            EFFECT_SHARE * self.effect, max(LEAST_TOLERANCE, ROUNDING_FACTOR * self.rounding)
        )

    @property
    def equal(self) -> bool:
        """False for differences that are no number, too."""
        return self.largest_difference <= self.tolerance


def reference_of(adapted: PeftModel, prompts: Sequence[list[int]]) -> Reference:
    top_tokens, with_adapter, without = [], [], []
    for prompt in prompts:
        said = log_probabilities(adapted, prompt)
        top = said.topk(min(TOP_TOKENS, said.shape[-1])).indices
        with adapted.disable_adapter():
            plain = log_probabilities(adapted, prompt)
        top_tokens.append(top)
        with_adapter.append(said.gather(-1, top))
        without.append(plain.gather(-1, top))
    return Reference(
        top_tokens,
        with_adapter,
        frozenset(adapted.base_model.targeted_module_names),
        largest_difference(with_adapter, without),
    )


def compare(
    merged: PreTrainedModel, prompts: Sequence[list[int]], reference: Reference
) -> Comparison:
    said, moved = [], []
    rounding = random_rounding(merged, reference.layers)
    for prompt, top in zip(prompts, reference.top_tokens, strict=True):
        said.append(log_probabilities(merged, prompt).gather(-1, top))
        moved.append(log_probabilities(merged, prompt, rounding).gather(-1, top))
    return Comparison(
        largest_difference=largest_difference(said, reference.log_probabilities),
        rounding=largest_difference(moved, said),
        effect=reference.effect,
    )


def largest_difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    import torch

    pairs = zip(one, other, strict=True)
    return float(torch.stack([(left - right).abs().max() for left, right in pairs]).max())


def log_probabilities(
    model: nn.Module, prompt: list[int], change: Change | None = None
) -> torch.Tensor:
    """Log-probabilities of all tokens at all positions, computed in float32."""
    import torch

    tokens = torch.tensor([prompt], device=model.device)
    arithmetic = torch.autocast(model.device.type, enabled=False)
    with torch.no_grad(), arithmetic, computing_with(model, change or in_float32):
        return model(tokens, use_cache=False).logits[0].float().log_softmax(-1)


def in_float32(_name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def random_rounding(model: PreTrainedModel, layers: frozenset[str]) -> Change:
    """Move the weights of some layers as rounding them to their type can."""
    import torch

    generator = torch.Generator(device=model.device).manual_seed(SEED)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        wide = in_float32(name, tensor)
        layer, _, parameter = name.rpartition(".")
        if layer not in layers or parameter != "weight":
            return wide
        most = torch.finfo(tensor.dtype).eps / 2
        share = torch.rand(wide.shape, generator=generator, device=wide.device).mul_(2).sub_(1)
        return wide * share.mul_(most).add_(1)

    return change


@contextmanager
def computing_with(model: nn.Module, change: Change) -> Iterator[None]:
    """Change parameters while they are used, and only then: a layer at a time, to save memory."""
    handles = []
    for unit, parameters in units(model):
        kept: dict[str, torch.Tensor] = {}

        def before(
            _module: nn.Module,
            _inputs: object,
            parameters: dict[str, nn.Parameter] = parameters,
            kept: dict[str, torch.Tensor] = kept,
        ) -> None:
            for name, parameter in parameters.items():
                kept[name] = parameter.data
                parameter.data = change(name, parameter.data)

        def after(
            _module: nn.Module,
            _inputs: object,
            _output: object,
            parameters: dict[str, nn.Parameter] = parameters,
            kept: dict[str, torch.Tensor] = kept,
        ) -> None:
            for name, parameter in parameters.items():
                parameter.data = kept.pop(name)

        handles.append(unit.register_forward_pre_hook(before))
        handles.append(unit.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def units(
    model: nn.Module, prefix: str = ""
) -> Iterator[tuple[nn.Module, dict[str, nn.Parameter]]]:
    """The modules whose parameters change together: layers as a whole, the rest one by one.

    Layers as a whole, because some reach into their parts for parameters without calling them.
    """
    from torch import nn

    own = dict(model.named_parameters(prefix.rstrip("."), recurse=False))
    if own:
        yield model, own
    for name, part in model.named_children():
        if isinstance(model, nn.ModuleList):
            yield part, dict(part.named_parameters(f"{prefix}{name}"))
        else:
            yield from units(part, f"{prefix}{name}.")
