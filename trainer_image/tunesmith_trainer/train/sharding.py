"""FSDP2: each process holds a part of every weight, and layers are gathered as they are needed.

torch's fully_shard is called here and not by accelerate, which does so on GPUs only: what CPUs can
test is then what GPUs run. The root keeps embeddings and output layer together, as the loss reads
the output layer's weight itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from tunesmith_trainer.processes import local_rank, world_size
from tunesmith_trainer.train.engine.layering import decoder_layers

if TYPE_CHECKING:
    from torch.nn import Module


def shard(model: Module) -> Module:
    """In place. Weights travel in the types that they have, and gradients are averaged in float32.

    4-bit weights stay whole on every process: they share their memory with the engine's buffers.
    """
    from torch.distributed.device_mesh import init_device_mesh

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    ignored = {each for each in model.parameters() if not each.is_floating_point()}
    settings: dict[str, Any] = {"mesh": mesh, "mp_policy": policy, "ignored_params": ignored}
    for layer in decoder_layers(model):
        fully_shard(layer, **settings)
    fully_shard(model, **settings)
    if kind == "cuda":
        place(model, ignored)
    # transformers then leaves placing and gradients to the model, and accelerate does not wrap it.
    model.is_distributed_loading_by_transformers = True
    return model


def place(model: Module, unsharded: set[torch.nn.Parameter]) -> None:
    """What is not sharded goes to this process's GPU whole: 4-bit weights, and buffers."""
    device = torch.device("cuda", local_rank())
    for tensor in (*unsharded, *model.buffers()):
        tensor.data = tensor.data.to(device)


def is_sharded(model: object) -> bool:
    return isinstance(model, FSDPModule)
