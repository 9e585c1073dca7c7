"""What happens to each decoder layer as a whole: compiled once for all, kept or computed again."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tunesmith.api.memory import ActivationCheckpointing

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

#: Of a class made here: the layer's own class.
ORIGINAL = "original_layer_class"


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that transformers can checkpoint, in the order in which they are computed."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]


def checkpoint(model: nn.Module, policy: ActivationCheckpointing, *, dropout: bool) -> None:
    """Keep the activations of no layer (Full), of every second (Partial) or of all (Off).

    Within the layer's forward pass and not around it, as transformers does it: so the compiler sees
    the second computation, and leaves out what no gradient needs. That is above all the product of
    the MLP's last and largest matrix.
    """
    for number, layer in enumerate(decoder_layers(model)):
        original: type = getattr(type(layer), ORIGINAL, type(layer))
        again = policy is ActivationCheckpointing.FULL or (
            policy is ActivationCheckpointing.PARTIAL and number % 2 == 0
        )
        layer.__class__ = computed_again(original, dropout) if again else original


@cache
def computed_again(original: type, dropout: bool) -> type:
    """The layer's class with a forward pass that keeps its input alone."""
    from torch.utils.checkpoint import checkpoint as again

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        if not self.training:
            return original.forward(self, *arguments, **named)  # type: ignore[attr-defined]
        return again(
            original.forward,  # type: ignore[attr-defined]
            self,
            *arguments,
            use_reentrant=False,
            # Dropout must fall alike both times; the generator's state is saved for that alone.
            preserve_rng_state=dropout,
            **named,
        )

    name = f"{original.__name__}ComputedAgain"
    return type(name, (original,), {"forward": forward, ORIGINAL: original})


def compile_layers(model: PreTrainedModel) -> None:
    """Layer by layer: seconds, as all layers share the compiled code, where the whole model takes
    minutes. For that the first layer's input must carry a gradient as the others' does.
    """
    model.enable_input_require_grads()
    for layer in decoder_layers(model):
        layer.compile()
