"""Peaks of memory that were measured, to hold predictions against.

One NVIDIA H100 80GB HBM3, torch 2.11.0+cu130, transformers 5.23.0, peft 0.21.2, bitsandbytes
0.50.2; torch.cuda.max_memory_allocated() of one run each. Random weights in the shapes of
Llama-3.1-8B and 70B and Llama-3.2-1B, rank 16 on all seven projections, no dropout but where a run
says so. Runs of two processes are of two NVIDIA H200, with transformers 5.17.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.memory import ActivationCheckpointing, Optimizer, Parallelism
from tunesmith.api.method import PROJECTIONS, Method
from tunesmith.memory_planner.known_models import KNOWN_MODELS
from tunesmith.memory_planner.memory import GIB, Setup
from tunesmith.memory_planner.model_shape import ModelShape

OFF, PARTIAL, FULL = (
    ActivationCheckpointing.OFF,
    ActivationCheckpointing.PARTIAL,
    ActivationCheckpointing.FULL,
)
MODELS = {"1B": "Llama-3.2-1B", "8B": "Llama-3.1-8B", "70B": "Llama-3.1-70B"}
PAGED = Optimizer.PAGED_ADAMW_8BIT


@dataclass(frozen=True)
class Measured:
    """A run: ``micro_batch`` sequences of ``length`` tokens, ``accumulation`` times a step."""

    model: str
    method: Method
    micro_batch: int
    length: int
    checkpointing: ActivationCheckpointing
    bytes: int
    optimizer: Optimizer = Optimizer.ADAMW
    accumulation: int = 1
    tokens_per_second: int | None = None
    dropout: float = 0.0
    parallelism: Parallelism | None = None

    @property
    def name(self) -> str:
        return (
            f"{self.model} {self.method} {self.micro_batch}x{self.length}x{self.accumulation} "
            f"{self.checkpointing}{' dropout' if self.dropout else ''}"
            f"{f' {self.parallelism}' if self.parallelism else ''}"
        )

    @property
    def shape(self) -> ModelShape:
        return KNOWN_MODELS[MODELS[self.model]]

    @property
    def setup(self) -> Setup:
        return Setup(
            method=self.method,
            rank=16,
            dropout=self.dropout,
            target_modules=tuple(PROJECTIONS),
            length=self.length,
            micro_batch=self.micro_batch,
            checkpointing=self.checkpointing,
            optimizer=self.optimizer,
            accumulates=self.accumulation > 1,
            processes=2 if self.parallelism else 1,
            parallelism=self.parallelism,
        )


#: Measured after the planner was written: what it says of settings that it was not made from.
AFTERWARDS = (
    Measured("8B", Method.LORA, 5, 2048, OFF, 76_632_098_304, dropout=0.05),
    Measured("8B", Method.LORA, 6, 2048, OFF, round(68.3 * GIB), parallelism=Parallelism.DDP),
    Measured("8B", Method.LORA, 6, 2048, OFF, round(62.8 * GIB), parallelism=Parallelism.FSDP2),
    Measured("8B", Method.LORA, 1, 2048, OFF, round(19.7 * GIB), parallelism=Parallelism.FSDP2),
    Measured("70B", Method.QLORA, 4, 2048, FULL, round(53.0 * GIB), parallelism=Parallelism.FSDP2),
)

#: This trainer's engine, by ``make bench-train``. The 70B's speed is the mean of two runs.
OF_OUR_ENGINE = (
    Measured("8B", Method.LORA, 2, 2048, OFF, 36_175_242_240),
    Measured("8B", Method.LORA, 5, 2048, OFF, 63_881_414_144, tokens_per_second=14_911),
    Measured("8B", Method.LORA, 6, 2048, OFF, 73_116_804_608, tokens_per_second=15_142),
    Measured("8B", Method.LORA, 4, 2048, PARTIAL, 37_418_960_384),
    Measured("8B", Method.LORA, 1, 8192, PARTIAL, 37_419_009_536),
    Measured("8B", Method.LORA, 8, 2048, FULL, 23_694_717_952),
    Measured("8B", Method.QLORA, 2, 4096, OFF, 44_288_289_280),
    Measured("8B", Method.QLORA, 8, 2048, OFF, 81_229_818_368, tokens_per_second=14_924),
    Measured("8B", Method.QLORA, 4, 2048, PARTIAL, 27_061_193_216),
    Measured("8B", Method.QLORA, 8, 2048, FULL, 13_453_211_648),
    Measured("8B", Method.DORA, 2, 2048, OFF, 38_887_236_608),
    Measured("8B", Method.DORA, 5, 2048, OFF, 70_619_940_352, tokens_per_second=14_139),
    Measured("8B", Method.DORA, 4, 2048, PARTIAL, 40_128_202_240),
    Measured("8B", Method.QDORA, 2, 2048, OFF, 28_529_469_440),
    Measured("8B", Method.QDORA, 8, 2048, FULL, 15_706_699_776),
    Measured("8B", Method.FULL, 1, 2048, OFF, 32_440_122_880, PAGED),
    Measured("8B", Method.FULL, 4, 2048, FULL, 32_854_556_672, PAGED),
    Measured("8B", Method.FULL, 3, 2048, OFF, 62_260_287_488, PAGED, 4, 10_471),
    Measured("1B", Method.LORA, 8, 2048, OFF, 24_046_253_568),
    Measured("1B", Method.LORA, 16, 2048, FULL, 7_864_771_584),
    Measured("1B", Method.FULL, 4, 2048, OFF, 18_369_428_992, Optimizer.ADAMW_8BIT),
    Measured("70B", Method.QLORA, 4, 2048, FULL, 56_006_055_936, tokens_per_second=1_343),
)
#: State of the optimiser that bitsandbytes held in managed memory in the paged runs.
PAGED_BYTES = 19_212_009_472


def of_other(
    method: Method, micro_batch: int, checkpointing: ActivationCheckpointing, gibibytes: float
) -> Measured:
    optimizer = PAGED if method is Method.FULL else Optimizer.ADAMW
    size = round(gibibytes * GIB)
    return Measured("8B", method, micro_batch, 2048, checkpointing, size, optimizer)


#: Prototypes whose peak is made of the same tensors: plain LoRA in compiled layers (C1 to C3 of the
#: notes on these runs; C3 holds frozen weights in 8 bits twice, which is as large as 16 bits once),
#: and TRL's full fine-tuning, whose peak is weights and gradients (F1). The others are left out, as
#: the engine needs another amount: C4 and C5 compute a layer again outside of compiled code and
#: hold it twice; in A1 to B6, Q1 to Q4, S1 and S2 no layer was compiled; D1 to D3 had other DoRAs.
OF_PROTOTYPES = (
    of_other(Method.LORA, 2, FULL, 17.5),
    of_other(Method.LORA, 6, OFF, 68.3),
    of_other(Method.LORA, 6, OFF, 68.0),
    of_other(Method.FULL, 2, FULL, 30.3),
)
