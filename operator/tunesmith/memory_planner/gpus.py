"""GPUs that people train on: their speed and memory, from the makers' datasheets. Pure.

Speeds are of bfloat16 with dense matrices; the datasheets print the doubled figure for sparse ones
first. The H100's 989 was measured as 794 in a product of 8192^3 and 705 in those of Llama-3.1-8B.
"""

from __future__ import annotations

from dataclasses import dataclass

GIGABYTE = 10**9


@dataclass(frozen=True)
class Gpu:
    name: str
    #: Nominal, as in the product's name.
    gigabytes: int
    #: Of bfloat16, 10**12 per second.
    teraflops: float
    #: Of memory, 10**9 bytes per second.
    gigabytes_per_second: float


#: Where several have the same memory, the one that is meant by its memory alone comes first.
KNOWN_GPUS = (
    Gpu("B200", 180, 2250, 7700),
    Gpu("H200", 141, 989, 4800),
    Gpu("H100 NVL", 94, 835, 3900),
    Gpu("H100", 80, 989, 3350),
    Gpu("A100 80GB", 80, 312, 2039),
    Gpu("H100 PCIe", 80, 756, 2000),
    Gpu("L40S", 48, 362, 864),
    Gpu("RTX 6000 Ada", 48, 364, 960),
    Gpu("A40", 48, 150, 696),
    Gpu("A100", 40, 312, 1555),
    Gpu("RTX 5090", 32, 210, 1792),
    Gpu("A10", 24, 125, 600),
    Gpu("A10G", 24, 70, 600),
    Gpu("L4", 24, 121, 300),
    Gpu("RTX 4090", 24, 165, 1008),
    Gpu("RTX 3090", 24, 71, 936),
    Gpu("RTX 4080", 16, 97, 717),
)

#: How far a stated memory may be from the nominal one: 80 GB are 74.5 GiB, people write 80Gi, and
#: cards with ECC offer some percent less.
TOLERANCE = 0.09


def gpu_by_name(name: str) -> Gpu | None:
    """The known GPU of torch.cuda.get_device_name, such as "NVIDIA H100 80GB HBM3"."""
    words = name.replace("-", " ").split()
    matching = [gpu for gpu in KNOWN_GPUS if all(word in words for word in gpu.name.split())]
    return max(matching, key=lambda gpu: len(gpu.name), default=None)


def gpu_by_memory(memory_bytes: int) -> Gpu | None:
    """The most usual GPU with about so much memory: a guess, as many have 24, 48 or 80 GB."""
    close = [
        gpu for gpu in KNOWN_GPUS if abs(memory_bytes / (gpu.gigabytes * GIGABYTE) - 1) <= TOLERANCE
    ]
    return min(
        close, key=lambda gpu: abs(memory_bytes / (gpu.gigabytes * GIGABYTE) - 1), default=None
    )
