"""What a training consists of at one step: weights that learn, optimiser, schedule, randomness.

Tensors are stored whole and by the names of their parameters. So it does not matter how many
processes write a checkpoint and how many read it, or whether parameters are sharded (FSDP2).
Calling the functions that gather is collective: every process must. The first one gets the tensors,
the others get nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from tunesmith_trainer.processes import gathered_objects, is_first, rank

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
RANDOM_FILE = "random.pt"
SCHEDULE_FILE = "schedule.json"

#: Between a parameter's name and what the optimiser keeps of it. No module's name has it.
OF = "//"
#: Wrappers that change names: compiled and recomputed modules.
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "module.")


def learning_parameters(model: Module) -> Iterator[tuple[str, Parameter]]:
    """Those with gradients, by the names that they have in an unwrapped model."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield plain_name(name), parameter


def plain_name(name: str) -> str:
    for wrapper in WRAPPERS[:2]:
        name = name.replace(wrapper, "")
    return name.removeprefix(WRAPPERS[2])


def whole(tensor: Tensor) -> Tensor | None:
    """A copy on the first process's CPU, from all that hold a part. Collective."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().to("cpu", copy=True).contiguous() if is_first() else None


def gathered_weights(model: Module) -> dict[str, Tensor]:
    """The weights that learn, by name; empty on all but the first process. Collective."""
    weights = {}
    for name, parameter in learning_parameters(model):
        tensor = whole(parameter)
        if tensor is not None:
            weights[name] = tensor
    return weights


def gathered_optimizer(model: Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, by parameter; empty on all but the first. Collective."""
    state = {}
    for name, parameter in learning_parameters(model):
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            tensor = whole(torch.as_tensor(value))
            if tensor is not None:
                state[f"{name}{OF}{key}"] = tensor
    return state


def random_state() -> dict[str, Any]:
    """Of this process: Python, numpy, torch on CPU and GPU."""
    kind, keys, position, has_gauss, gauss = numpy.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": (
            kind,
            torch.from_numpy(numpy.asarray(keys, dtype="int64")),
            position,
            has_gauss,
            gauss,
        ),
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), position, has_gauss, gauss))
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def write_state(
    folder: Path | None,
    model: Module,
    optimizer: Optimizer,
    schedule: dict[str, Any],
) -> None:
    """Collective; only the first process has a folder to write into."""
    weights = gathered_weights(model)
    optimizer_state = gathered_optimizer(model, optimizer)
    randoms = gathered_objects(random_state())
    if folder is None:
        return
    save_file(weights, folder / WEIGHTS_FILE)
    save_file(optimizer_state, folder / OPTIMIZER_FILE)
    torch.save(randoms, folder / RANDOM_FILE)
    (folder / SCHEDULE_FILE).write_text(json.dumps(schedule) + "\n", encoding="utf-8")


def read_weights(folder: Path, model: Module) -> None:
    """Each process reads what it holds."""
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as stored, torch.no_grad():
        for name, parameter in learning_parameters(model):
            parameter.copy_(placed_like(parameter, stored.get_tensor(name)))


def read_optimizer(folder: Path, model: Module, optimizer: Optimizer) -> None:
    """Put back what the optimiser remembered, through its own way of loading.

    Its settings (learning rate and so on) come from the plan and the schedule, not from the file.
    """
    names = {id(parameter): name for name, parameter in learning_parameters(model)}
    state: dict[int, dict[str, Tensor | int]] = {}
    with safe_open(folder / OPTIMIZER_FILE, framework="pt") as stored:
        keys: dict[str, list[str]] = {}
        for entry in stored.keys():  # noqa: SIM118 - not a dict
            name, _, key = entry.partition(OF)
            keys.setdefault(name, []).append(key)
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for index, parameter in enumerate(parameters):
            name = names[id(parameter)]
            state[index] = {
                key: remembered(parameter, stored.get_tensor(f"{name}{OF}{key}"))
                for key in keys.get(name, [])
            }
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    page(optimizer)


def remembered(parameter: Tensor, value: Tensor) -> Tensor | int:
    """One entry as the optimiser had it: bitsandbytes counts its steps in plain integers."""
    if value.shape == parameter.shape:
        return placed_like(parameter, value)
    return int(value) if value.dtype is torch.int64 and value.ndim == 0 else value


def page(optimizer: Optimizer) -> None:
    """Move the state of a paged optimiser back into memory that can leave the GPU."""
    if not getattr(optimizer, "is_paged", False):
        return
    for parameter, state in optimizer.state.items():
        for key in ("state1", "state2"):
            if key in state:
                buffer = optimizer.get_state_buffer(parameter, dtype=state[key].dtype)
                buffer.copy_(state[key])
                state[key] = buffer


def placed_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole tensor as the parameter lies: on its device, and of it only this process's part."""
    if not isinstance(parameter, DTensor):
        return value
    mesh = parameter.device_mesh
    value = value.to(parameter.to_local().device)
    # Every process has read the same file: nothing needs to be sent.
    return distribute_tensor(value, mesh, parameter.placements, src_data_rank=None)


def read_random_state(folder: Path, seed: int) -> None:
    """This process's own, if there was one; else one that follows from seed and rank."""
    randoms = torch.load(folder / RANDOM_FILE, weights_only=True)
    if rank() < len(randoms):
        restore_random_state(randoms[rank()])
    else:
        torch.manual_seed(seed + 1_000_003 * (rank() + 1))


def read_schedule(folder: Path) -> dict[str, Any]:
    schedule: dict[str, Any] = json.loads((folder / SCHEDULE_FILE).read_bytes())
    return schedule
