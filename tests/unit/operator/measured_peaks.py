"""Peaks of memory that were measured, to hold predictions against.

One NVIDIA H100 80GB HBM3, torch 2.11.0+cu130, transformers 5.23.0, trl 1.16.0, peft 0.21.2,
liger-kernel 0.8.5, bitsandbytes 0.50.2; torch.cuda.max_memory_allocated() of one run each. Random
weights in the shapes of Llama-3.1-8B and 70B, rank 16 on all seven projections, no dropout,
sequences of 2048 tokens. Names are those of the notes on these runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunesmith.api.memory import ActivationCheckpointing, Optimizer
from tunesmith.api.method import PROJECTIONS, Method
from tunesmith.memory_planner.activations import COMPILED, EAGER, Engine
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.memory import GIB, Setup
from tunesmith.memory_planner.model_shape import ModelShape

OFF, PARTIAL, FULL = (
    ActivationCheckpointing.OFF,
    ActivationCheckpointing.PARTIAL,
    ActivationCheckpointing.FULL,
)
#: Fused layers called one by one; the heads of TRL and Liger take smaller pieces than ours.
FUSED = replace(EAGER, pieces=1)


@dataclass(frozen=True)
class Measured:
    """A run. ``tokens_per_second`` is left out where the code was another than is predicted."""

    name: str
    method: Method
    micro_batch: int
    checkpointing: ActivationCheckpointing
    engine: Engine
    gibibytes: float
    tokens_per_second: int | None = None

    @property
    def shape(self) -> ModelShape:
        return KNOWN_MODELS["Llama-3.1-70B" if self.name.startswith("S") else "Llama-3.1-8B"]

    @property
    def setup(self) -> Setup:
        full = self.method is Method.FULL
        return Setup(
            method=self.method,
            rank=16,
            dropout=0.0,
            target_modules=tuple(PROJECTIONS),
            length=2048,
            micro_batch=self.micro_batch,
            checkpointing=self.checkpointing,
            optimizer=Optimizer.PAGED_ADAMW_8BIT if full else Optimizer.ADAMW,
            engine=self.engine,
        )

    @property
    def bytes(self) -> float:
        return self.gibibytes * GIB


#: Steps as the predicted ones: fused, or plain LoRA in compiled layers, master weights in 32 bits.
#: C3 and C5 hold frozen weights in 8 bits twice, which is as large as 16 bits once. F1 is TRL's
#: full fine-tuning, whose peak is weights and gradients.
OF_OUR_KIND = (
    Measured("B3", Method.LORA, 2, FULL, FUSED, 17.3),
    Measured("B4", Method.LORA, 7, OFF, FUSED, 75.9, 15_212),
    Measured("B5", Method.LORA, 12, PARTIAL, FUSED, 71.6, 12_998),
    Measured("B6", Method.LORA, 16, FULL, FUSED, 29.6, 10_990),
    Measured("C1", Method.LORA, 2, FULL, COMPILED, 17.5, 10_522),
    Measured("C2", Method.LORA, 6, OFF, COMPILED, 68.3, 15_328),
    Measured("C3", Method.LORA, 6, OFF, COMPILED, 68.0),
    Measured("C4", Method.LORA, 8, FULL, COMPILED, 24.3, 10_910),
    Measured("C5", Method.LORA, 8, FULL, COMPILED, 23.9),
    Measured("Q3", Method.QLORA, 8, OFF, FUSED, 74.8, 15_130),
    Measured("D3", Method.DORA, 2, FULL, FUSED, 17.7),
    Measured("F1", Method.FULL, 2, FULL, FUSED, 30.3),
    Measured("S2", Method.QLORA, 4, FULL, FUSED, 52.7, 1_307),
)

#: TRL and PEFT as they come, some with Liger's kernels; adapters of B2, Q1, Q2, Q4 and S1 are in
#: 16 bits, which saves half a GiB of ours (two of the 70B's).
OF_OTHERS = (
    Measured("A1", Method.LORA, 2, FULL, FUSED, 22.5),
    Measured("A2", Method.LORA, 2, FULL, FUSED, 17.8),
    Measured("A3", Method.LORA, 2, FULL, FUSED, 17.6),
    Measured("A4", Method.LORA, 2, FULL, FUSED, 17.7),
    Measured("A5", Method.LORA, 2, FULL, FUSED, 17.8),
    Measured("A6", Method.LORA, 8, FULL, FUSED, 24.7),
    Measured("A7", Method.LORA, 4, OFF, FUSED, 69.6),
    Measured("A8", Method.LORA, 5, OFF, FUSED, 69.3),
    Measured("B1", Method.LORA, 2, FULL, FUSED, 17.3),
    Measured("B2", Method.LORA, 6, OFF, FUSED, 67.0),
    Measured("Q1", Method.QLORA, 2, FULL, FUSED, 7.6),
    Measured("Q2", Method.QLORA, 8, FULL, FUSED, 12.6),
    Measured("Q4", Method.QLORA, 6, OFF, FUSED, 57.4),
    Measured("D1", Method.DORA, 2, FULL, FUSED, 19.7),
    Measured("D2", Method.QDORA, 2, FULL, FUSED, 11.1),
    Measured("S1", Method.QLORA, 1, FULL, FUSED, 43.1),
)
