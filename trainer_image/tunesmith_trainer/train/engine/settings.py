"""What the engine has to know of a training, whoever asks: a job, a test or a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunesmith.api.memory import ActivationCheckpointing, Optimizer
from tunesmith.api.method import Lora, Method
from tunesmith.api.training import Backend


@dataclass(frozen=True)
class EngineSettings:
    """How one process holds and computes the model. Nothing in it is Auto any more."""

    method: Method = Method.LORA
    lora: Lora = field(default_factory=Lora)
    checkpointing: ActivationCheckpointing = ActivationCheckpointing.OFF
    optimizer: Optimizer = Optimizer.ADAMW
    backend: Backend = Backend.TUNESMITH
    #: Compile each decoder layer. On a CPU this costs more than it gives.
    compile: bool = False
    #: Tokens of the longest document.
    max_length: int = 2048
